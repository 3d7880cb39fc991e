"""The gateway as a Ray Serve deployment."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from rlplatform.errors import SpecError
from rlplatform.serve.app import create_app
from rlplatform.serve.dedicated import ServeFleet
from rlplatform.serve.gateway import Gateway, open_gateway
from rlplatform.serve.replicas import prepare_replica, replica_options, shared_counts, shared_lease, sharing
from rlplatform.serve.runs import RunService, keeping
from rlplatform.serve.settings import ServeSettings, load_serve_settings
from rlplatform.specs.settings import Settings, load_settings

APP_NAME = "rlplatform"


class Replica:
    """One replica of the gateway."""

    def __init__(self, settings: ServeSettings, platform: Settings) -> None:
        """Open the store, and get ready to load models."""
        prepare_replica(settings, platform.home)
        self._open = ExitStack()
        runs = RunService(platform)
        fleet = ServeFleet(settings, platform)
        opened = open_gateway(settings, platform, shared_lease(), runs, fleet, shared_counts())
        self._gateway: Gateway = self._open.enter_context(opened)
        self._open.enter_context(sharing(self._gateway))
        self._open.enter_context(keeping(self._gateway.experiments, settings, platform))
        if serve.get_replica_context().rank.rank == 0:
            # Not here: Serve answers only once the replica stands.
            Thread(target=fleet.restore, args=(self._gateway.deployments,), daemon=True).start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the app; Serve asks for it once the replica stands."""
        return create_app(self._gateway, names_requests=False)

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
        **replica_options(settings, num_cpus=0),
    )
    application: serve.Application = deployment.bind(settings, platform)
    return application
