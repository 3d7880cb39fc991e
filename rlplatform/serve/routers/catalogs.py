"""/environments, /algorithms, /rewards: the names that requests may use, and what is known of each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from rlplatform.algos.catalog import algorithm_names, find_algorithm
from rlplatform.envs.catalog import rewards
from rlplatform.serve.documents import shown_algorithm
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.routers.experiment_schemas import Body
from rlplatform.serve.routers.params import errors
from rlplatform.specs.algos import spec_class


class EnvironmentAnswer(Body):
    """An environment."""

    name: str
    description: str
    observation_space: dict[str, Any]
    """`type`, `shape`, `dtype`, and `n` of a Discrete space; empty where the environment cannot be made."""
    action_space: dict[str, Any]
    error: str | None = None
    """Why it cannot be made."""


class AlgorithmAnswer(Body):
    """An algorithm."""

    name: str
    description: str
    paper: str
    action_spaces: tuple[str, ...]
    """Classes of action spaces that it can act in."""
    default_hyperparameters: dict[str, Any]
    amendable: tuple[str, ...]
    """Hyper-parameters that can be changed while an experiment is paused."""
    hyperparameters_schema: dict[str, Any] = Field(default={})
    """JSON schema of the hyper-parameters."""


class RewardAnswer(Body):
    """A reward function to train on instead of the environment's own."""

    name: str
    description: str


def catalogs_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["catalogs"])

    @router.get("/environments", responses=errors())
    async def environments() -> list[EnvironmentAnswer]:
        """Return every environment that can be trained in."""
        return [EnvironmentAnswer(**described) for described in await gateway.runs.environments()]

    @router.get("/algorithms", responses=errors())
    def algorithms() -> list[AlgorithmAnswer]:
        """Return every algorithm, with its hyper-parameters and their defaults."""
        return [_algorithm(name) for name in algorithm_names()]

    @router.get("/rewards", responses=errors())
    def reward_functions() -> list[RewardAnswer]:
        """Return every reward function."""
        return [RewardAnswer(name=entry.name, description=entry.summary) for entry in rewards().values()]

    return router


def _algorithm(name: str) -> AlgorithmAnswer:
    entry, spec = find_algorithm(name), spec_class(name)
    defaults = spec(name=entry.name).model_dump(mode="json", exclude={"name"})
    return AlgorithmAnswer(
        name=shown_algorithm(entry.name),
        description=entry.summary,
        paper=entry.paper,
        action_spaces=entry.action_spaces,
        default_hyperparameters=defaults,
        amendable=tuple(sorted(spec.amendable)),
        hyperparameters_schema=spec.model_json_schema(),
    )
