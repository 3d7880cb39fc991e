"""Small policies made by hand and an app that serves them, so that tests of serving import no torch."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import onnx
import uvicorn
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper

from rlplatform import names
from rlplatform.artifacts.checkpoint import FileRecord
from rlplatform.policy.bundle import BundleManifest, DistributionSpec, TensorSpec
from rlplatform.policy.spaces import BoxSpace, DiscreteSpace
from rlplatform.serve.models import ModelCache
from rlplatform.serve.refusals import add_refusals
from rlplatform.serve.routers.inference import inference_router
from rlplatform.serve.routers.stream import stream_router
from rlplatform.serve.routers.v2 import v2_router
from rlplatform.serve.services import InferenceLimits, Services
from rlplatform.specs.settings import Settings
from rlplatform.store.registry import DatabaseRegistry, open_registry

T = TypeVar("T")
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
HIDDEN = 3


def write_policy(folder: Path, *, value: float = 0.0, memory: bool = False, padding: int = 0) -> Path:
    """Write a bundle over 4 numbers and 2 choices; return its folder.

    Logits are `obs[:2]`. The value is `value`, so that versions can be told apart; with `memory` it is the sum over the
    episode of what was seen. `padding` are bytes that make it larger.
    """
    select = np.zeros((4, 2), np.float32)
    select[0, 0] = select[1, 1] = 1.0
    constants: dict[str, np.ndarray] = {
        "select": select,
        "none": np.zeros((4, 1), np.float32),
        "offset": np.array([value], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["obs", "select"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["action"], axis=1, keepdims=0),
    ]
    inputs: list[tuple[str, int, list[Any]]] = [("obs", FLOAT, ["batch", 4])]
    outputs: list[tuple[str, int, list[Any]]] = [
        ("action", INT, ["batch"]),
        ("logits", FLOAT, ["batch", 2]),
        ("value", FLOAT, ["batch"]),
    ]
    if memory:
        inputs += [("state/h", FLOAT, [1, "batch", HIDDEN]), ("episode_start", TensorProto.BOOL, ["batch"])]
        outputs.append(("next_state/h", FLOAT, [1, "batch", HIDDEN]))
        constants |= {"sum": np.ones((4, HIDDEN), np.float32), "ends": np.array([0, 2], np.int64)}
        nodes += [
            helper.make_node("Not", ["episode_start"], ["going_on"]),
            helper.make_node("Cast", ["going_on"], ["kept"], to=FLOAT),
            helper.make_node("Unsqueeze", ["kept", "ends"], ["kept_3d"]),
            helper.make_node("Mul", ["state/h", "kept_3d"], ["before"]),
            helper.make_node("MatMul", ["obs", "sum"], ["seen"]),
            helper.make_node("Add", ["before", "seen"], ["next_state/h"]),
            helper.make_node("ReduceMean", ["next_state/h"], ["value"], axes=[0, 2], keepdims=0),
        ]
    else:
        nodes += [
            helper.make_node("MatMul", ["obs", "none"], ["nothing"]),
            helper.make_node("Add", ["nothing", "offset"], ["value_2d"]),
            helper.make_node("Squeeze", ["value_2d", "axis"], ["value"]),
        ]
        constants["axis"] = np.array([1], np.int64)
    if padding:
        constants["padding"] = np.zeros(padding // 4, np.float32)
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _write(folder, model, memory=memory)


def _write(folder: Path, model: onnx.ModelProto, *, memory: bool) -> Path:
    graph = model.SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names.BUNDLE_ONNX_FILE).write_bytes(graph)
    state_in = (
        TensorSpec(name="state/h", dtype="float32", shape=(1, None, HIDDEN)),
        TensorSpec(name="episode_start", dtype="bool", shape=(None,)),
    )
    state_out = (TensorSpec(name="next_state/h", dtype="float32", shape=(1, None, HIDDEN)),)
    manifest = BundleManifest(
        algorithm="ppo",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        observation_space=BoxSpace(shape=(4,), dtype="float32", low="-inf", high="inf"),
        action_space=DiscreteSpace(n=2),
        inputs=(TensorSpec(name="obs", dtype="float32", shape=(None, 4)), *(state_in if memory else ())),
        outputs=(
            TensorSpec(name="action", dtype="int64", shape=(None,)),
            TensorSpec(name="logits", dtype="float32", shape=(None, 2)),
            TensorSpec(name="value", dtype="float32", shape=(None,)),
            *(state_out if memory else ()),
        ),
        distribution=DistributionSpec(type="categorical", parameters=("logits",), nvec=(2,)),
        mask_size=2,
        state=("state/h",) if memory else (),
        has_value=True,
        normalized=False,
        opset=17,
        files={
            names.BUNDLE_ONNX_FILE: FileRecord(sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph)),
        },
    )
    (folder / names.BUNDLE_JSON_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder


def registry_of(root: Path, **policies: dict[str, Any]) -> DatabaseRegistry:
    """Publish one version of each policy, from the arguments of `write_policy`."""
    registry = open_registry(Settings(home=root))
    for name, arguments in policies.items():
        registry.publish(name, write_policy(root / "bundles" / name, **arguments))
    return registry


@contextmanager
def services_of(registry: Any, limits: InferenceLimits | None = None, **cache: Any) -> Iterator[Services]:
    """Yield what endpoints work with."""
    models = ModelCache(registry, **cache)
    services = Services(registry, models, limits or InferenceLimits())
    try:
        yield services
    finally:
        models.close()
        services.workers.shutdown()


def app_of(services: Services) -> FastAPI:
    """Return an app of the routers for inference alone."""
    app = FastAPI()
    add_refusals(app)
    for router in (inference_router(services), v2_router(services), stream_router(services)):
        app.include_router(router)
    return app


@contextmanager
def served(services: Services) -> Iterator[str]:
    """Serve an app on a free port, from a thread; yield host and port."""
    config = uvicorn.Config(app_of(services), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


def run_with_client(
    services: Services, talk: Callable[[httpx.AsyncClient], Awaitable[T]], app: FastAPI | None = None
) -> T:
    """Run a conversation with an app, in this process."""

    async def main() -> T:
        transport = httpx.ASGITransport(app=app or app_of(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await talk(client)

    return asyncio.run(main())


def post(services: Services, path: str, **arguments: Any) -> httpx.Response:
    """Return the answer to one POST."""
    return run_with_client(services, lambda client: client.post(path, **arguments))


def get(services: Services, path: str) -> httpx.Response:
    """Return the answer to one GET."""
    return run_with_client(services, lambda client: client.get(path))
