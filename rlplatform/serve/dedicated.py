"""A deployment of a single model: an application of Ray Serve with replicas and resources of its own.

It stands at `/deployments/<model>` and answers as the service itself does: /inference, /v2, the WebSocket, /health.
Models share the service's replicas unless they are deployed; one that must not wait for others, or needs more than a
core, is. A change of what is wanted replaces replica by replica, new ones first, so that no request fails for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from rlplatform.errors import ModelNotFound
from rlplatform.logs import get_logger
from rlplatform.policy.registry import Model, ModelRegistry, ModelVersion, parse_reference
from rlplatform.serve.app import create_model_app
from rlplatform.serve.fleet import DeploymentState
from rlplatform.serve.gateway import open_gateway
from rlplatform.serve.models import ModelCache
from rlplatform.serve.replicas import prepare_replica, replica_options, shared_counts, shared_lease, sharing
from rlplatform.serve.services import Services
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings
from rlplatform.store.deployments import Deployment, DeploymentStore

_APP_PREFIX = "model-"
_log = get_logger(__name__)


def route_of(model: str) -> str:
    """Return where a model's deployment stands."""
    return f"/deployments/{model}"


class OneModel:
    """A registry in which there is one model; its name alone stands for what is deployed."""

    def __init__(self, registry: ModelRegistry, deployment: Deployment) -> None:
        """See nothing of `registry` but the deployment's model."""
        self._registry, self._deployment = registry, deployment

    def __getattr__(self, name: str) -> Any:
        """Leave to the registry what is not about finding a model."""
        return getattr(self._registry, name)

    def resolve(self, reference: str) -> ModelVersion:
        """Return the version that a reference stands for; see `ModelRegistry.resolve`."""
        asked = parse_reference(reference)
        if asked.name != self._deployment.model:
            raise ModelNotFound(
                f"There is only the model {self._deployment.model!r} here, got {asked.name!r}. "
                "Ask the service itself, at /inference, for others."
            )
        whole = asked.number is None and asked.alias is None
        return self._registry.resolve(self._deployment.reference if whole else reference)

    def models(self) -> tuple[Model, ...]:
        """Return the model."""
        return (self._registry.model(self._deployment.model),)


class ModelReplica:
    """One replica of a model's deployment."""

    def __init__(self, settings: ServeSettings, platform: Settings, deployment: Deployment) -> None:
        """Open the store, and get ready to load the model."""
        prepare_replica(settings, platform.home)
        self._open = ExitStack()
        gateway = self._open.enter_context(open_gateway(settings, platform, shared_lease(), share=shared_counts()))
        registry = OneModel(gateway.registry, deployment)
        models = ModelCache(registry, max_bytes=settings.model_cache_bytes, n_threads=max(1, int(deployment.cpus)))
        self._open.callback(models.close)
        inference = Services(registry=registry, models=models, limits=gateway.inference.limits)
        self._gateway = replace(gateway, inference=inference)
        self._open.enter_context(sharing(self._gateway))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the app; Serve asks for it once the replica stands."""
        return create_model_app(self._gateway, names_requests=False)

    def __del__(self) -> None:
        """Close the store."""
        if hasattr(self, "_open"):
            self._open.close()


class ServeFleet:
    """Deployments on the Ray Serve that this process is part of."""

    def __init__(self, settings: ServeSettings, platform: Settings) -> None:
        """Deploy with the service's own settings."""
        self._settings, self._platform = settings, platform

    def deploy(self, deployment: Deployment) -> None:
        """Begin a deployment, or begin to turn the model's present one into it; see `Fleet.deploy`."""
        made: Any = serve.deployment(
            serve.ingress()(ModelReplica),
            name="model",
            num_replicas=deployment.replicas,
            **replica_options(self._settings, deployment.cpus),
        )
        target = serve.RunTarget(
            made.bind(self._settings, self._platform, deployment),
            name=_APP_PREFIX + deployment.model,
            route_prefix=route_of(deployment.model),
        )
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)

    def remove(self, model: str) -> None:
        """End a model's deployment, if there is one."""
        serve.delete(_APP_PREFIX + model, _blocking=False)

    def states(self) -> Mapping[str, DeploymentState]:
        """Return how each deployment is, by model."""
        found = {}
        for name, application in serve.status().applications.items():
            if name.startswith(_APP_PREFIX):
                replicas = [one.replica_states for one in application.deployments.values()]
                found[name.removeprefix(_APP_PREFIX)] = DeploymentState(
                    application.status.value.lower(),
                    application.message,
                    sum(n for states in replicas for state, n in states.items() if state == "RUNNING"),
                )
        return found

    def restore(self, store: DeploymentStore) -> None:
        """Begin every deployment that is wanted and is not there, as after a restart."""
        there = self.states()
        for deployment in store.list():
            if deployment.model not in there:
                _log.info("deploying %s again", deployment.model)
                self.deploy(deployment)
