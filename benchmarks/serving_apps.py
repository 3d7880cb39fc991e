"""The services that `benchmarks.serving` compares, each in a process of its own: `python -m benchmarks.serving_apps`.

`ours` is the whole gateway with keys, limits and counters on. The others are what one would write without it: `sb3` as
FastAPI's tutorial does, `sb3_tuned` with what helps it most.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "sb3" not in sys.argv:
    for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_variable] = "1"  # Before torch, NumPy or onnxruntime is imported.

from fastapi import FastAPI, Request, WebSocket
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

MODEL = "cartpole"


class Body(BaseModel):
    """What system B's inference takes."""

    model_name: str
    observation: list[float]
    deterministic: bool = True


def empty(home: Path) -> FastAPI:
    """An endpoint that does nothing, and a WebSocket that says back what it hears."""
    app = FastAPI()

    @app.post("/inference")
    async def inference() -> dict[str, Any]:
        return {}

    @app.websocket("/inference/stream")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app


def sb3(home: Path) -> FastAPI:
    """FastAPI, pydantic and SB3's `predict` in a plain function, which FastAPI calls in a thread."""
    import numpy as np
    from stable_baselines3 import PPO

    model = PPO.load(home / "model.zip", device="cpu")
    app = FastAPI()

    @app.post("/inference")
    def inference(body: Body) -> dict[str, Any]:
        action, _ = model.predict(np.array(body.observation, np.float32), deterministic=body.deterministic)
        return {"action": int(action)}

    return app


def sb3_tuned(home: Path) -> FastAPI:
    """The same on the event loop, with one thread for torch."""
    import numpy as np
    import torch
    from stable_baselines3 import PPO

    torch.set_num_threads(1)
    model = PPO.load(home / "model.zip", device="cpu")
    app = FastAPI()

    @app.post("/inference")
    async def inference(body: Body) -> dict[str, Any]:
        action, _ = model.predict(np.array(body.observation, np.float32), deterministic=body.deterministic)
        return {"action": int(action)}

    return app


def bare_onnx(home: Path) -> FastAPI:
    """The least that answers a batch: JSON or float32 in, `session.run`, actions out."""
    import numpy as np
    import onnxruntime as ort
    from fastapi import Response

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(home / "bundle" / "policy.onnx"), options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/inference")
    async def inference(request: Request) -> Response:
        obs = np.asarray(json.loads(await request.body())["observation"], np.float32)
        action = session.run(["action"], {"obs": obs})[0]
        return Response(json.dumps({"action": action.tolist()}), media_type="application/json")

    @app.post("/binary")
    async def binary(request: Request) -> Response:
        obs = np.frombuffer(await request.body(), np.float32).reshape(-1, 4)
        return Response(session.run(["action"], {"obs": obs})[0].tobytes(), media_type="application/octet-stream")

    @app.websocket("/inference/stream")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            obs = np.asarray(json.loads(text)["observation"], np.float32)[None]
            await websocket.send_text(json.dumps({"action": session.run(["action"], {"obs": obs})[0][0].tolist()}))

    return app


def ours(home: Path) -> ASGIApp:
    """The gateway, with a key asked for, a limit, and counters."""
    from rlplatform.serve.app import create_app
    from rlplatform.serve.gateway import open_gateway
    from rlplatform.serve.settings import load_serve_settings
    from rlplatform.specs.settings import load_settings

    settings = load_serve_settings(require_auth=True, rate_limit_per_minute=100_000_000)
    opened = open_gateway(settings, load_settings())
    app = create_app(opened.__enter__())
    atexit.register(opened.__exit__, None, None, None)
    return app


class Other:
    """A replica of an app that is not ours, for Ray Serve."""

    def __init__(self, name: str, home: str) -> None:
        """Make the app."""
        self._app = APPS[name](Path(home))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the app."""
        return self._app


def serve_all(home: Path, port: int) -> None:
    """Serve `ON_SERVE` on one Ray Serve, one replica each, set up as `rlplatform serve` does; ours at the root."""
    import signal
    import threading

    from rlplatform.serve.haproxy import find_haproxy, serve_environment

    environment = serve_environment(home / "haproxy", find_haproxy(), f"127.0.0.1:{port}")
    os.environ |= {"RAY_AUTH_MODE": "disabled", **environment}
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    from rlplatform.serve.deployment import APP_NAME, bind
    from rlplatform.serve.settings import load_serve_settings
    from rlplatform.specs.settings import load_settings

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(home / "ray"))
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host="127.0.0.1", port=port))
    for name in ON_SERVE:
        if name != "ours":
            deployment: Any = serve.deployment(
                serve.ingress()(Other), name=name, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
            )
            serve.run(deployment.bind(name, str(home)), name=name, route_prefix=f"/{name}")
    settings = load_serve_settings(require_auth=True, rate_limit_per_minute=100_000_000, port=port)
    serve.run(bind(settings, load_settings()), name=APP_NAME, route_prefix="/")
    (home / "serving").touch()
    ended.wait()
    serve.shutdown()
    ray.shutdown()


def prepare(home: Path) -> str:
    """Make the policy that all of them serve, publish it, and return a key for it."""
    from contextlib import closing

    from stable_baselines3 import PPO

    from rlplatform.names import MODELS_DIR
    from rlplatform.policy.export import export_bundle
    from rlplatform.specs.settings import load_settings
    from rlplatform.store.database import open_database
    from rlplatform.store.keys import KeyStore
    from rlplatform.store.registry import DatabaseRegistry

    model = PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0)
    model.save(home / "model.zip")
    bundle = export_bundle(model, None, home / "bundle")
    settings = load_settings()
    with closing(open_database(settings)) as database:
        DatabaseRegistry(database, settings.home / MODELS_DIR).publish(MODEL, bundle.path)
        return KeyStore(database).create("benchmark", scopes=("infer",)).secret


def main() -> None:
    """Serve one of them, or prepare for it and print a key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", choices=["prepare", "serve", *APPS])
    parser.add_argument("home", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if arguments.app == "prepare":
        print(prepare(arguments.home))
        return
    if arguments.app == "serve":
        from benchmarks import serving_apps  # Not `__main__`, which would be pickled by value.

        serving_apps.serve_all(arguments.home, arguments.port)
        return
    import uvicorn

    uvicorn.run(
        APPS[arguments.app](arguments.home),
        port=arguments.port,
        log_level="error",
        access_log=False,
        ws_per_message_deflate=False,
    )


APPS: dict[str, Callable[[Path], ASGIApp]] = {
    "empty": empty,
    "sb3": sb3,
    "sb3_tuned": sb3_tuned,
    "bare_onnx": bare_onnx,
    "ours": ours,
}
ON_SERVE = ("empty", "bare_onnx", "ours")
"""What stands on Ray Serve, where that is asked for; SB3's is what one would put under uvicorn."""

if __name__ == "__main__":
    main()
