"""How many experiments may be at work at once, counted in the transaction that adds one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from rlplatform.artifacts.run_state import RunState
from rlplatform.errors import LimitReached
from rlplatform.store.tables import EXPERIMENTS


@dataclass(frozen=True)
class Capacity:
    """How many experiments may be at work at once."""

    most: int
    owner: str | None = None
    """Count only those of this owner. None: everybody's."""
    statuses: frozenset[RunState] = frozenset({"queued", "running"})
    """The states that count as being at work."""


def check_room(connection: Connection, old: RunState, new: RunState, within: Sequence[Capacity]) -> None:
    """Check that limits leave room for an experiment that goes from one state to another.

    Raises:
        LimitReached: There is no room.
    """
    for capacity in within:
        if new not in capacity.statuses or old in capacity.statuses:
            continue
        at_work = count_experiments(connection, capacity.statuses, capacity.owner)
        if at_work >= capacity.most:
            whose = "" if capacity.owner is None else " of this key"
            raise LimitReached(
                f"At most {capacity.most} experiments{whose} may be at work at once, and {at_work} are. "
                "Wait until one has ended, or stop one."
            )


def count_experiments(connection: Connection, statuses: Collection[RunState], owner: str | None) -> int:
    """Return how many experiments are in one of some states; of everybody when `owner` is None."""
    query = select(func.count()).select_from(EXPERIMENTS).where(EXPERIMENTS.c.status.in_(statuses))
    if owner is not None:
        query = query.where(EXPERIMENTS.c.owner == owner)
    return connection.execute(query).scalar_one()
