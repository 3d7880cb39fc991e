"""`/`, `/health`, `/config`, `/metrics`: what the service says of itself. Two documents' answers are united in them."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from time import monotonic
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rlplatform.algos.catalog import algorithm_names
from rlplatform.envs.catalog import environments
from rlplatform.serve.documents import shown_algorithm
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.telemetry import CONTENT_TYPE, exposition

VERSION = version("rlplatform")
ACTIVE = ("queued", "running")


def system_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["system"])
    settings = gateway.settings

    @router.get("/", summary="What this service is")
    def root() -> dict[str, Any]:
        return {
            "message": "rlplatform",
            "version": VERSION,
            "docs": "/docs",
            "health": "/health",
            "endpoints": {
                "train": "POST /train",
                "inference": "POST /inference",
                "experiments": "POST /experiments",
                "health": "GET /health",
                "models": "GET /models",
            },
        }

    @router.get("/health", summary="Whether the service works")
    def health() -> dict[str, Any]:
        experiments = gateway.experiments
        active = [one for one in experiments.unfinished() if one.status in ACTIVE]
        return {
            "status": "healthy",
            "timestamp": datetime.now(UTC),
            "version": VERSION,
            "uptime_seconds": round(monotonic() - gateway.started_s, 3),
            "active_experiments": sum(one.kind == "experiment" for one in active),
            "active_jobs": sum(one.kind == "grpo" for one in active),
            "loaded_models": len(gateway.inference.models.loaded()),
        }

    @router.get("/config", summary="How the service is set; nothing secret")
    def config() -> dict[str, Any]:
        return {
            "server": {
                "host": settings.host,
                "port": settings.port,
                "debug": settings.debug,
                "workers": settings.workers,
            },
            "application": {"title": "rlplatform", "version": VERSION},
            "directories": {"base_dir": gateway.home.name},  # Where it is, is nobody's business.
            "rl_system": {
                "supported_algorithms": [shown_algorithm(name) for name in algorithm_names()],
                "supported_environments": sorted(environments()),
                "max_concurrent_experiments": settings.max_concurrent_experiments,
                "default_timeout_minutes": settings.default_timeout_minutes,
            },
            "validation": {"max_total_timesteps": settings.max_total_timesteps},
        }

    @router.get("/metrics", summary="Counters of all replicas, for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(exposition(await gateway.share(gateway.counts())), media_type=CONTENT_TYPE)

    return router
