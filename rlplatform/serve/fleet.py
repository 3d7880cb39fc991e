"""What routes ask about deployments of single models. `dedicated` answers with Ray Serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rlplatform.errors import ResourceError
from rlplatform.store.deployments import Deployment


@dataclass(frozen=True)
class DeploymentState:
    """How a deployment is."""

    status: str
    """Ray Serve's word, in small letters: `deploying`, `running`, `unhealthy`, `deploy_failed`, `deleting`."""
    message: str
    running_replicas: int


class Fleet(Protocol):
    """Runs deployments."""

    def deploy(self, deployment: Deployment) -> None:
        """Begin a deployment, or begin to turn the model's present one into it, replica by replica.

        Raises:
            ResourceError: There is nothing to deploy on.
        """

    def remove(self, model: str) -> None:
        """End a model's deployment, if there is one."""

    def states(self) -> Mapping[str, DeploymentState]:
        """Return how each deployment is, by model."""


class NoFleet:
    """Where no Ray Serve is: nothing is deployed, and nothing can be."""

    def deploy(self, deployment: Deployment) -> None:
        """Refuse.

        Raises:
            ResourceError: Always.
        """
        raise ResourceError(
            "Deployments need Ray Serve, which does not run here. Start the service by `rlplatform serve`."
        )

    def remove(self, model: str) -> None:
        """Do nothing."""

    def states(self) -> Mapping[str, DeploymentState]:
        """Return nothing."""
        return {}
