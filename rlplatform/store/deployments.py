"""Deployments that are wanted: which model has replicas of its own. What runs is made to agree with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from rlplatform.store.database import Database
from rlplatform.store.tables import DEPLOYMENTS


@dataclass(frozen=True)
class Deployment:
    """A model with replicas of its own."""

    model: str
    reference: str
    """What a request that names only the model asks for."""
    replicas: int
    cpus: float
    """Booked by each replica."""
    updated_at: datetime


class DeploymentStore:
    """The deployments of a database."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`, whose schema is up to date."""
        self._database = database

    def put(self, deployment: Deployment) -> None:
        """Add a deployment, or replace that of the same model."""
        with self._database.begin() as connection:
            connection.execute(delete(DEPLOYMENTS).where(DEPLOYMENTS.c.model == deployment.model))
            connection.execute(insert(DEPLOYMENTS).values(vars(deployment)))

    def get(self, model: str) -> Deployment | None:
        """Return a model's deployment, or None."""
        return next((one for one in self.list() if one.model == model), None)

    def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by model."""
        with self._database.read() as connection:
            rows = connection.execute(select(DEPLOYMENTS).order_by(DEPLOYMENTS.c.model))
            return tuple(Deployment(**row._mapping) for row in rows)

    def remove(self, model: str) -> bool:
        """Forget a model's deployment; return whether there was one."""
        with self._database.begin() as connection:
            return bool(connection.execute(delete(DEPLOYMENTS).where(DEPLOYMENTS.c.model == model)).rowcount)
