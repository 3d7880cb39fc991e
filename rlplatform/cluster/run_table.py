"""What the RunManager remembers of each run it looks after, and the journal that brings it back after a restart."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util.placement_group import PlacementGroup

from rlplatform import names
from rlplatform.artifacts.atomic import write_json
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.cluster.resources import Booking
from rlplatform.cluster.retry import DEFAULT_MAX_RETRIES

Phase = Literal["queued", "booking", "training", "paused"]

SUBMITTER_GONE = "its submitter is gone"
"""Why a run stops whose submitter has not been heard of for a lease's time."""


@dataclass(frozen=True)
class Submission:
    """What a driver asks of a run that it hands over; the part of an entry that never changes."""

    run_path: str
    owner: str
    bundles: Sequence[Mapping[str, float]]
    """What the run books. The submitter reads the spec: it may hold names that only its own code knows."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """Code and variables that the run trains with: the submitting job's."""
    max_retries: int = DEFAULT_MAX_RETRIES
    limit: int | None = None
    """How many of the owner's runs may be active together."""
    detach: bool = False
    """Whether the run goes on when its submitter is gone."""

    @property
    def booking(self) -> Booking:
        """What the run books."""
        return Booking(tuple(self.bundles))


@dataclass
class Entry:
    """One run in the manager's hands."""

    submission: Submission
    phase: Phase = "queued"
    attempt: int = 0
    """Actors started so far; part of their names, because Ray gives a name back only some time after a death."""
    retries: int = 0
    wanted: Literal["pause", "stop"] | None = None
    reason: str = ""
    # --- not in the journal: found again or asked again after a restart
    actor: Any = None
    group: PlacementGroup | None = None
    answer: ray.ObjectRef[Any] | None = None
    """The question that is out: whether resources are booked, or the actor's status."""
    progress: dict[str, Any] | None = None
    wanted_since: float = 0.0
    told: bool = False
    """Whether the actor has been asked for what is wanted."""
    elsewhere: bool = False
    """Whether a process that is not of this manager trains the run, and so writes its run.json."""

    @property
    def run_dir(self) -> RunDir:
        """The run's folder."""
        return RunDir(Path(self.submission.run_path))

    @property
    def actor_name(self) -> str:
        """Name of the present attempt's actor and placement group."""
        return f"{names.RUN_ACTOR_PREFIX}{self.run_dir.id}:{self.attempt}"

    @property
    def active(self) -> bool:
        """Whether the run trains or waits for resources it has asked for."""
        return self.phase in {"booking", "training"}

    def want(self, action: Literal["pause", "stop"], reason: str) -> None:
        """Remember what is asked of the run; stop outdoes pause."""
        if self.wanted != "stop":
            self.wanted, self.reason, self.wanted_since, self.told = action, reason, time.monotonic(), False

    def status(self) -> dict[str, Any]:
        """Return the run's status in plain values."""
        record = self.run_dir.read()
        if self.phase != "training":
            return status_of(record, "paused" if self.phase == "paused" else "queued", None, self.reason)
        # Until its process has imported torch and restored its checkpoint, a run still waits.
        began = self.progress is not None or record.state == "running"
        return status_of(record, "running" if began else "queued", self.progress, self.reason)


def status_of(
    record: RunRecord, state: str, progress: dict[str, Any] | None = None, reason: str = ""
) -> dict[str, Any]:
    """Return a run's status in plain values, from its record and, while it trains, its latest progress."""
    ended_at_step = record.attempts[-1].end_step if record.attempts else None
    known = progress or {
        "step": max(record.progress.step, ended_at_step or 0),
        "total_timesteps": record.progress.total,
        "rollout_return": record.progress.episode_return,
    }
    return {**known, "run_id": record.id, "state": state, "reason": record.reason or reason, "retries": record.retries}


class Journal:
    """The manager's entries on disk: one file, removed when nothing is left to remember."""

    def __init__(self, path: Path) -> None:
        """Keep the entries in the file `path`."""
        self.path = path

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace what is remembered."""
        lines = [
            {
                "submission": asdict(entry.submission),
                "phase": entry.phase,
                "attempt": entry.attempt,
                "retries": entry.retries,
                "wanted": entry.wanted,
                "reason": entry.reason,
            }
            for entry in entries
        ]
        if lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, lines)
        else:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another manager's journal lies there too
                self.path.parent.rmdir()

    def read(self) -> list[Entry]:
        """Return what was remembered; nothing if there is no file."""
        if not self.path.exists():
            return []
        lines = json.loads(self.path.read_text())
        return [Entry(**{**line, "submission": Submission(**line["submission"])}) for line in lines]
