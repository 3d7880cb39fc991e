"""Which queued runs may start now: a pure function over what the RunManager knows; the manager carries it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_WAITING = 16
"""Runs whose placement groups may wait for resources at once: enough for an autoscaler to see what is wanted."""


@dataclass(frozen=True)
class Waiting:
    """A queued run."""

    run_id: str
    owner: str
    limit: int | None
    """How many runs of this owner may be active together. None: no limit."""


@dataclass(frozen=True)
class Active:
    """A run that trains, or waits for the resources it has asked for."""

    run_id: str
    owner: str
    booked: bool
    """Whether its resources have been given."""


@dataclass(frozen=True)
class Decision:
    """Whether a queued run starts, and why."""

    run_id: str
    start: bool
    reason: str


def plan_starts(queue: Sequence[Waiting], active: Iterable[Active]) -> tuple[Decision, ...]:
    """Decide for every queued run, in order, whether it asks for its resources now.

    Args:
        queue: Queued runs, first come first.
        active: Runs that train or wait for resources.
    """
    active = list(active)
    by_owner = Counter(run.owner for run in active)
    waiting = sum(not run.booked for run in active)
    decisions = []
    for run in queue:
        if run.limit is not None and by_owner[run.owner] >= run.limit:
            reason, start = f"{by_owner[run.owner]} runs of this submission are active, its limit is {run.limit}", False
        elif waiting >= MAX_WAITING:
            reason, start = f"{waiting} runs before it wait for resources", False
        else:
            reason, start = "it is next in the queue", True
            waiting += 1
            by_owner[run.owner] += 1
        decisions.append(Decision(run.run_id, start, reason))
    return tuple(decisions)
