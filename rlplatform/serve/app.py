"""The app: every route of both documents, of KServe's protocol and of ours, behind one gate."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import rlplatform
from rlplatform.serve.auth import Authenticator
from rlplatform.serve.gate import Gate
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.limits import RateLimiter
from rlplatform.serve.refusals import add_refusals
from rlplatform.serve.routers.inference import inference_router
from rlplatform.serve.routers.stream import stream_router
from rlplatform.serve.routers.system import system_router
from rlplatform.serve.routers.v2 import v2_router
from rlplatform.serve.shortcut import Shortcut

TITLE = "rlplatform"
DESCRIPTION = "Train reinforcement-learning agents and ask their policies for actions."


def create_app(gateway: Gateway) -> FastAPI:
    """Return the ASGI app of one replica."""
    app = FastAPI(title=TITLE, description=DESCRIPTION, version=rlplatform.__version__)
    add_refusals(app)
    inference = inference_router(gateway.inference)
    app.include_router(inference)
    app.include_router(v2_router(gateway.inference))
    app.include_router(stream_router(gateway.inference))
    app.include_router(system_router(gateway))
    settings = gateway.settings
    app.add_middleware(Shortcut, router=inference)  # First, so that it is the innermost.
    app.add_middleware(
        Gate,
        settings=settings,
        authenticator=Authenticator(settings, gateway.keys),
        limiter=RateLimiter(gateway.lease),
        telemetry=gateway.telemetry,
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
        expose_headers=["X-Request-ID", "X-Process-Time", "Retry-After"],
    )
    return app
