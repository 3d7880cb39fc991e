"""Which runs to remove: a pure decision for each, with its reason, and the function that carries them out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rlplatform.artifacts.atomic import remove_dir
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.artifacts.run_state import FINISHED, RunState


@dataclass(frozen=True)
class PrunePolicy:
    """What is old enough to go. A run goes only if every rule lets it."""

    states: frozenset[RunState] = FINISHED
    """Only runs in these states go."""
    older_than: timedelta = timedelta(0)
    """Only runs that ended, or if they never did were made, at least so long ago."""
    keep_per_name: int = 0
    """So many of the newest runs of each name stay."""


@dataclass(frozen=True)
class PruneDecision:
    """What happens to one run."""

    run_id: str
    remove: bool
    reason: str


def plan_prune(
    records: Iterable[RunRecord],
    policy: PrunePolicy,
    *,
    now: datetime,
    alive: Collection[str] = (),
    published: Collection[str] = (),
) -> tuple[PruneDecision, ...]:
    """Decide for each run whether it goes, newest first.

    Args:
        records: The runs to decide about.
        policy: What may go.
        now: The present time, with its time zone.
        alive: Ids of runs that a process is training. They stay, whatever their record says.
        published: Ids of runs from which a model version was published. They stay.
    """
    newer: Counter[str] = Counter()
    decisions = []
    for record in sorted(records, key=lambda record: (record.created_at, record.id), reverse=True):
        kept_because = _reason_to_keep(record, policy, now, alive, published, newer[record.name])
        newer[record.name] += 1
        reason = kept_because or f"it is {record.state} since {_days(now - _last_moment(record))}"
        decisions.append(PruneDecision(record.id, remove=not kept_because, reason=reason))
    return tuple(decisions)


def remove_runs(home: Path, decisions: Iterable[PruneDecision]) -> tuple[str, ...]:
    """Remove the runs that are to go, each under its own lock; return their ids.

    Raises:
        RunStateError: If a process has begun to train one of them since the decision.
        StorageError: If a folder cannot be removed.
    """
    removed = []
    for decision in decisions:
        if decision.remove:
            run = RunDir.open(home, decision.run_id)
            with run.lock():
                remove_dir(run.path)
            removed.append(decision.run_id)
    return tuple(removed)


def folder_bytes(folder: Path) -> int:
    """Return the bytes on disk that removing ``folder`` would free; a file linked twice inside counts once."""
    sizes: dict[int, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _reason_to_keep(
    record: RunRecord,
    policy: PrunePolicy,
    now: datetime,
    alive: Collection[str],
    published: Collection[str],
    n_newer: int,
) -> str | None:
    if record.id in alive:
        return "it is being trained"
    if record.id in published:
        return "a model version was published from it"
    if record.state not in policy.states:
        return f"it is {record.state}"
    if n_newer < policy.keep_per_name:
        return f"it is one of the {policy.keep_per_name} newest of {record.name}"
    if (age := now - _last_moment(record)) < policy.older_than:
        return f"it is {record.state} since only {_days(age)}"
    return None


def _last_moment(record: RunRecord) -> datetime:
    return record.ended_at or record.created_at


def _days(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.1f} hours"
