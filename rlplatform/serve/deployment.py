"""The gateway as a Ray Serve deployment, and the one ledger that its replicas share."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.types import ASGIApp

from rlplatform import names
from rlplatform.cluster.session import remote
from rlplatform.errors import SpecError
from rlplatform.logs import configure
from rlplatform.serve.app import create_app
from rlplatform.serve.gateway import Gateway, open_gateway
from rlplatform.serve.limits import Grant, Lease, Ledger
from rlplatform.serve.runs import RunService, keeping
from rlplatform.serve.settings import ServeSettings, load_serve_settings
from rlplatform.specs.settings import Settings, load_settings

APP_NAME = "rlplatform"
LEDGER_ACTOR = "rlplatform-ledger"
MAX_ONGOING = 256
MAX_QUEUED = 1024
"""Requests beyond those at work that one replica lets wait; more are answered with 503."""

RemoteLedger: Any = remote(num_cpus=0, max_restarts=-1)(Ledger)


class Replica:
    """One replica of the gateway."""

    def __init__(self, settings: ServeSettings, platform: Settings) -> None:
        """Open the store, and get ready to load models."""
        configure(log_dir(settings, platform.home), settings.log_level, terminal=False)
        self._open = ExitStack()
        runs = RunService(platform)
        self._gateway: Gateway = self._open.enter_context(open_gateway(settings, platform, shared_lease(), runs))
        self._open.enter_context(keeping(self._gateway.experiments, settings, platform))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the app; Serve asks for it once the replica stands."""
        return create_app(self._gateway)

    def __del__(self) -> None:
        """Close the store."""
        if hasattr(self, "_open"):
            self._open.close()


def build(args: dict[str, Any] | None = None) -> serve.Application:
    """Return the application, for `serve.run`, `serve run` and the config files of `serve deploy`.

    Args:
        args: `home`, and any field of `ServeSettings`; what is left out comes from the environment.

    Raises:
        SpecError: A name is not a setting, or a value is not valid.
    """
    args = dict(args or {})
    platform = load_settings()
    if home := args.pop("home", None):
        platform = platform.model_copy(update={"home": Path(home).expanduser().absolute()})
    if unknown := sorted(set(args) - set(ServeSettings.model_fields)):
        raise SpecError(
            f"Unknown argument {unknown[0]!r} of the application. "
            f"Known: home, {', '.join(sorted(ServeSettings.model_fields))}."
        )
    return bind(load_serve_settings(**args), platform)


def bind(settings: ServeSettings, platform: Settings) -> serve.Application:
    """Return the application for settings that are known."""
    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name="gateway",
        num_replicas=settings.workers,
        max_ongoing_requests=MAX_ONGOING + settings.max_streams,
        max_queued_requests=MAX_QUEUED,
        graceful_shutdown_timeout_s=settings.shutdown_timeout_s,
        health_check_period_s=5,
        ray_actor_options={"num_cpus": 0},
    )
    application: serve.Application = deployment.bind(settings, platform)
    return application


def shared_lease() -> Lease:
    """Return the lease of the ledger that all replicas share; the first one makes it."""
    ledger = RemoteLedger.options(
        name=LEDGER_ACTOR, namespace=names.RAY_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()

    async def lease(key: str, per_minute: float, wanted: int) -> Grant:
        try:
            grant: Grant = await ledger.lease.remote(key, per_minute, wanted)
        except ray.exceptions.RayError:
            return Grant(0, 1.0)  # it is being restarted: nobody gets past a limit meanwhile
        return grant

    return lease


def log_dir(settings: ServeSettings, home: Path) -> Path:
    """Return the folder of the service's logs."""
    return settings.log_dir or home / names.LOGS_DIR / "api"
