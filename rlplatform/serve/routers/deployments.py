"""/api/v1/…: models with replicas of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, model_validator

from rlplatform.errors import LimitReached, ModelNotFound
from rlplatform.serve.fleet import DeploymentState
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.routers.experiment_schemas import Body
from rlplatform.serve.routers.params import ModelName, Who, errors
from rlplatform.store.deployments import Deployment
from rlplatform.store.tables import now

_GONE = DeploymentState("missing", "It is wanted and not there. POST it again.", 0)


class DeploymentRequest(Body):
    """What is wanted."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    cpus: Annotated[float, Field(ge=0, le=1024)] = 1.0
    """Booked by each replica; from 2 on, one evaluation uses as many threads."""
    alias: Annotated[str, Field(max_length=64)] | None = None
    """Answers for the bare name, also after it has moved. Without it and `version`: the champion, else the newest."""
    version: Annotated[int, Field(ge=1, le=999_999)] | None = None
    """Answers for the bare name."""

    @model_validator(mode="after")
    def _one_of_them(self) -> DeploymentRequest:
        if self.alias is not None and self.version is not None:
            raise ValueError("give `alias` or `version`, not both")
        return self

    def reference(self, model: str) -> str:
        """Return what the bare name stands for."""
        which = self.alias if self.version is None else self.version
        return model if which is None else f"{model}@{which}"


class DeploymentAnswer(Body):
    """A deployment, as it is wanted and as it is."""

    model: str
    reference: str
    path: str
    """Where it answers: append `/inference` and so on."""
    replicas: int
    cpus: float
    status: str
    """`deploying`, `running`, `unhealthy`, `deploy_failed`, `deleting` or `missing`."""
    message: str
    running_replicas: int
    updated_at: datetime


class DeploymentsAnswer(Body):
    """All deployments."""

    deployments: tuple[DeploymentAnswer, ...]


class RemovedAnswer(Body):
    """What was done."""

    message: str


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def deploy(self, name: ModelName, body: DeploymentRequest, who: Who) -> DeploymentAnswer:
        """Give a model replicas of its own, or change what it has, replica by replica, without a failed request.

        Answered at once; GET says when they run.
        """
        gateway, most = self._gateway, self._gateway.settings.max_cpus
        if body.cpus * body.replicas > most:
            raise LimitReached(
                f"A deployment may book {most:g} CPUs, got {body.replicas} replicas of {body.cpus:g}. "
                "Ask for fewer, or raise `RL_API_MAX_CPUS`."
            )
        reference = body.reference(name)
        gateway.registry.resolve(reference)
        deployment = Deployment(name, reference, body.replicas, body.cpus, now())
        gateway.fleet.deploy(deployment)
        gateway.deployments.put(deployment)
        detail = {"reference": reference, "replicas": body.replicas, "cpus": body.cpus}
        gateway.audit.record(who.name, "deployment.set", name, detail)
        return _answer(deployment, gateway.fleet.states().get(name, _GONE))

    def deployments(self) -> DeploymentsAnswer:
        """Return every deployment."""
        states = self._gateway.fleet.states()
        wanted = self._gateway.deployments.list()
        return DeploymentsAnswer(deployments=tuple(_answer(one, states.get(one.model, _GONE)) for one in wanted))

    def deployment(self, name: ModelName) -> DeploymentAnswer:
        """Return a model's deployment."""
        found = self._gateway.deployments.get(name)
        if found is None:
            raise _not_deployed(name)
        return _answer(found, self._gateway.fleet.states().get(name, _GONE))

    def remove(self, name: ModelName, who: Who) -> RemovedAnswer:
        """End a model's deployment; the model stays, and the service itself answers for it."""
        if self._gateway.deployments.get(name) is None:
            raise _not_deployed(name)
        self._gateway.fleet.remove(name)  # First: should it fail, it can be asked for again.
        self._gateway.deployments.remove(name)
        self._gateway.audit.record(who.name, "deployment.remove", name)
        return RemovedAnswer(message=f"{name} has no replicas of its own any more.")


def deployments_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router, routes = APIRouter(prefix="/api/v1", tags=["deployments"]), _Routes(gateway)
    add, path = router.add_api_route, "/models/{name}/deploy"
    add("/deployments", routes.deployments, methods=["GET"], responses=errors())
    add(path, routes.deploy, methods=["POST"], status_code=202, responses=errors(404))
    add(path, routes.deployment, methods=["GET"], responses=errors(404))
    add(path, routes.remove, methods=["DELETE"], responses=errors(404))
    return router


def _answer(deployment: Deployment, state: DeploymentState) -> DeploymentAnswer:
    return DeploymentAnswer(
        model=deployment.model,
        reference=deployment.reference,
        path=f"/deployments/{deployment.model}",
        replicas=deployment.replicas,
        cpus=deployment.cpus,
        status=state.status,
        message=state.message,
        running_replicas=state.running_replicas,
        updated_at=deployment.updated_at,
    )


def _not_deployed(name: str) -> ModelNotFound:
    return ModelNotFound(f"{name!r} has no replicas of its own. POST /api/v1/models/{name}/deploy gives it some.")
