"""The app: every route of both documents, of KServe's protocol and of ours, behind one gate."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rlplatform.serve.auth import Authenticator
from rlplatform.serve.gate import Gate
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.limits import RateLimiter
from rlplatform.serve.refusals import add_refusals
from rlplatform.serve.routers.artifacts import artifacts_router
from rlplatform.serve.routers.catalogs import catalogs_router
from rlplatform.serve.routers.deployments import deployments_router
from rlplatform.serve.routers.experiments import experiments_router
from rlplatform.serve.routers.inference import inference_router
from rlplatform.serve.routers.metrics import metrics_router
from rlplatform.serve.routers.models import models_router
from rlplatform.serve.routers.stream import stream_router
from rlplatform.serve.routers.system import system_router
from rlplatform.serve.routers.training import training_router
from rlplatform.serve.routers.v2 import v2_router
from rlplatform.serve.shortcut import Shortcut

TITLE = "rlplatform"
DESCRIPTION = "Train reinforcement-learning agents and ask their policies for actions."
_ROUTERS = (
    system_router,
    experiments_router,
    metrics_router,
    artifacts_router,
    training_router,
    models_router,
    deployments_router,
    catalogs_router,
)


class Cors(CORSMiddleware):
    """Starlette's, for browsers; other clients send no `Origin` and pay nothing for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one connection."""
        if any(name == b"origin" for name, _ in scope.get("headers", ())):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def create_app(gateway: Gateway, *, names_requests: bool = True) -> ASGIApp:
    """Return what one replica answers with: the routes behind the gate.

    Args:
        gateway: What it answers from.
        names_requests: Whether answers get `X-Request-ID` here; Ray Serve adds one by itself.
    """
    return _guarded(create_api(gateway), gateway, names_requests)


def create_model_app(gateway: Gateway, *, names_requests: bool = True) -> ASGIApp:
    """Return what a replica of a single model's deployment answers with, wherever it is mounted."""
    api = FastAPI(title=TITLE, description=DESCRIPTION, version=version("rlplatform"), docs_url=None, redoc_url=None)
    add_refusals(api, gateway.home)
    _add_inference(api, gateway)
    api.include_router(system_router(gateway))
    return Unmounted(_guarded(api, gateway, names_requests))


class Unmounted:
    """Takes the prefix under which Serve mounts an app off the paths, so that the gate's rules know them."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one connection."""
        root, path = scope.get("root_path", ""), scope.get("path", "")
        if root and path.startswith(root):
            scope = {**scope, "path": path.removeprefix(root) or "/", "root_path": ""}
        await self._app(scope, receive, send)


def _guarded(api: ASGIApp, gateway: Gateway, names_requests: bool) -> ASGIApp:
    """Return the gate and what lies before it; an inference does not pass through what only the other routes need."""
    settings = gateway.settings
    app: ASGIApp = Shortcut(api, inference_router(gateway.inference))
    authenticator, limiter = Authenticator(settings, gateway.keys), RateLimiter(gateway.lease)
    app = Gate(app, settings, authenticator, limiter, gateway.telemetry, names_requests=names_requests)
    return Cors(
        app,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
        expose_headers=["X-Request-ID", "X-Process-Time", "X-Total-Count", "Retry-After"],
    )


def create_api(gateway: Gateway) -> FastAPI:
    """Return the routes, and their OpenAPI document."""
    api = FastAPI(title=TITLE, description=DESCRIPTION, version=version("rlplatform"))
    add_refusals(api, gateway.home)
    _add_inference(api, gateway)
    for make_router in _ROUTERS:
        api.include_router(make_router(gateway))
    return api


def _add_inference(api: FastAPI, gateway: Gateway) -> None:
    for make_router in (inference_router, v2_router, stream_router):
        api.include_router(make_router(gateway.inference))
