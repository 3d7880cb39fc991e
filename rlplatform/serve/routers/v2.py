"""KServe's Open Inference Protocol, version 2, and Triton's repository index, so that existing clients work.

Models are loaded when they are asked for. So every version is ready; to ask whether one is loads it.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from rlplatform.errors import ModelNotFound, RequestError, RlPlatformError
from rlplatform.policy.registry import ModelRegistry
from rlplatform.serve.errors import status_of
from rlplatform.serve.inference import evaluated
from rlplatform.serve.models import LoadedModel
from rlplatform.serve.raw import Headers, RawResponse, RawRoute, read_body
from rlplatform.serve.routers import v2_schemas as schemas
from rlplatform.serve.services import Services
from rlplatform.serve.tensors import TensorAnswer, TensorRequest, decode_request

_HEADER_LENGTH = b"inference-header-content-length"
_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_encode = msgspec.json.Encoder().encode


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class ProtocolRoute(RawRoute):
    """Answers errors as the protocol has them."""

    async def respond(self, request: Request) -> Response:
        """Return the endpoint's answer, or its error as `{"error": message}`."""
        try:
            return await super().respond(request)
        except RlPlatformError as error:
            return RawResponse(_encode({"error": str(error)}), status=status_of(error))


def v2_router(services: Services) -> APIRouter:
    """Return the router of /v2."""
    router = APIRouter(route_class=ProtocolRoute, tags=["open inference protocol"])
    _add_server_routes(router, services)
    _add_model_routes(router, services)
    return router


def _add_server_routes(router: APIRouter, services: Services) -> None:
    about = {
        "name": "rlplatform",
        "version": version("rlplatform"),
        "extensions": ["binary_tensor_data", "model_repository"],
    }
    server = _encode(about)

    async def metadata(request: Request) -> Response:
        """Name the server and the extensions of the protocol that it knows."""
        return RawResponse(server)

    async def live(request: Request) -> Response:
        """Say that the server is alive."""
        return RawResponse(b'{"live":true}')

    async def ready(request: Request) -> Response:
        """Say that the server takes requests."""
        return RawResponse(b'{"ready":true}')

    async def index(request: Request) -> Response:
        """List every version of every model."""
        body = await read_body(request)
        try:
            msgspec.json.decode(body or b"{}", type=_IndexRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(f"The body does not fit: {error}.") from error
        # Versions are loaded on demand: all are ready, so that the body's `ready` leaves none out.
        return RawResponse(_encode(await asyncio.to_thread(_index, services.registry)))

    router.add_api_route("/v2", metadata, responses=schemas.SERVER)
    router.add_api_route("/v2/health/live", live, responses=schemas.LIVE)
    router.add_api_route("/v2/health/ready", ready, responses=schemas.READY)
    router.add_api_route(
        "/v2/repository/index", index, methods=["POST"], responses=schemas.INDEX, openapi_extra=schemas.INDEX_REQUEST
    )


def _add_model_routes(router: APIRouter, services: Services) -> None:
    async def metadata(request: Request) -> Response:
        """Describe a model: its versions, and the names, types and shapes of its tensors."""
        name, loaded = await _loaded(request, services)
        model = await asyncio.to_thread(services.registry.model, loaded.version.name)
        versions = [str(number) for number in model.versions]
        body = {"name": name, "versions": versions, "platform": "onnxruntime_onnx", **loaded.tensors.metadata}
        return RawResponse(_encode(body), loaded.headers)

    async def ready(request: Request) -> Response:
        """Load a model, and say that it is ready."""
        name, loaded = await _loaded(request, services)
        return RawResponse(_encode({"name": name, "ready": True}), loaded.headers)

    async def infer(request: Request) -> Response:
        """Ask a policy for the actions to a batch of observations.

        `parameters` may hold `deterministic` (true), `seed`, and `binary_data_output` (false).
        """
        name, loaded = await _loaded(request, services)
        asked, binary = decode_request(await read_body(request), _header_length(request))
        arrays = loaded.tensors.read(asked, binary)
        rows = loaded.tensors.rows(arrays)
        answer = await evaluated(loaded, rows, services, lambda: _answer(name, loaded, asked, arrays))
        if answer.header_bytes is None:
            return RawResponse(answer.body, loaded.headers)
        headers: Headers = [*loaded.headers, (_HEADER_LENGTH, b"%d" % answer.header_bytes)]
        return RawResponse(answer.body, headers, media=b"application/octet-stream")

    for path in (_MODEL, _VERSION):
        extra = schemas.path_parameters(path)
        router.add_api_route(path, metadata, responses=schemas.MODEL, openapi_extra=extra)
        router.add_api_route(f"{path}/ready", ready, responses=schemas.MODEL_READY, openapi_extra=extra)
        extra = extra | schemas.INFER_REQUEST
        router.add_api_route(f"{path}/infer", infer, methods=["POST"], responses=schemas.INFER, openapi_extra=extra)


async def _loaded(request: Request, services: Services) -> tuple[str, LoadedModel]:
    """Return the name by which a model was asked for, and the model."""
    name = request.path_params["model"]
    number = request.path_params.get("version")
    if number is not None and ("@" in name or not number.isdigit()):
        raise ModelNotFound(f"{name!r} has no version {number!r}. Versions are numbers, of a name without `@`.")
    reference = name if number is None else f"{name}@{number}"
    return name, services.models.current(reference) or await services.models.get(reference)


def _answer(name: str, model: LoadedModel, asked: TensorRequest, arrays: dict[str, Any]) -> TensorAnswer:
    parameters = asked.parameters
    prediction = model.runtime.predict(
        **model.tensors.arguments(arrays),
        deterministic=parameters.deterministic,
        rng=parameters.rng(),
    )
    return model.tensors.answer(name, model.version.number, asked, prediction)


def _header_length(request: Request) -> int | None:
    given = None
    for name, value in request.scope["headers"]:
        if name == _HEADER_LENGTH:
            given = value
        elif name == b"content-encoding" and value != b"identity":
            raise RequestError("The body must not be compressed. Send it as it is.")
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise RequestError(f"`Inference-Header-Content-Length` must be a number of bytes, got {given!r}.")
    return int(given)


def _index(registry: ModelRegistry) -> list[dict[str, str]]:
    return [
        {"name": model.name, "version": str(number), "state": "READY", "reason": ""}
        for model in registry.models()
        for number in model.versions
    ]
