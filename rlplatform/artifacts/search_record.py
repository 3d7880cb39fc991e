"""What a search tells of itself: search.json, and one record for each trial in trials.jsonl."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rlplatform.artifacts.provenance import GitRevision, Machine
from rlplatform.specs.search import ObjectiveSpec

SearchState = Literal["created", "running", "completed", "stopped", "failed"]
TrialState = Literal["queued", "running", "paused", "completed", "stopped", "failed"]
"""`completed`: trained its whole budget; `stopped`: by the scheduler or by the search's budget."""

TRIAL_ENDED: frozenset[TrialState] = frozenset({"completed", "stopped", "failed"})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class TrialRecord(_Part):
    """How far one trial is: one point of the space, trained with each of its seeds."""

    trial_id: str
    """Its number with leading zeros; the name of its folder."""
    number: Annotated[int, Field(ge=0)]
    """Trials are numbered from 0 in the order of their suggestion."""
    point: dict[str, JsonValue]
    """Value by dotted path into the run's spec, as it is now: population based training changes it."""
    seeds: tuple[int, ...]
    state: TrialState = "queued"
    step: int = 0
    """Environment steps of each seed."""
    iteration: int = 0
    """Evaluations so far."""
    trained_steps: int = 0
    """Environment steps spent, over all seeds, including those that an exploited population member gave up."""
    value: float | None = None
    """The objective's metric at the latest evaluation, aggregated over the seeds."""
    best_value: float | None = None
    """The best of the values so far, by the objective's mode."""
    started: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None
    """Why it is in this state, in words."""
    generation: int = 0
    """How often it took over another trial's networks."""
    run_dirs: tuple[str, ...] = ()
    """Its runs' folders, one for each seed, relative to the search's folder."""

    @property
    def ended_for_good(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in TRIAL_ENDED

    def score(self, objective: ObjectiveSpec) -> float | None:
        """Return what the objective compares trials by; None while nothing was reported, and for a failed trial."""
        if self.state == "failed":
            return None
        return self.best_value if objective.of == "best" else self.value


class SearchRecord(_Part):
    """The contents of search.json."""

    format: Literal[1] = 1
    id: str
    name: str
    algorithm: str
    env: str
    sampler: str
    scheduler: str
    seeds: tuple[int, ...]
    objective: ObjectiveSpec
    n_trials: int
    """Trials that the budget and the grid allow."""
    state: SearchState = "created"
    reason: str | None = None
    """Why it is in this state, in words."""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    elapsed_s: float = 0.0
    """Wall-clock seconds of all attempts."""
    attempts: int = 0
    best_trial: str | None = None
    best_value: float | None = None
    spec_digest: str
    command: str
    job: str | None = None
    """Id of the job that asked for it; None outside `rlplatform jobs`."""
    git: GitRevision | None = None
    machine: Machine
    versions: dict[str, str]


def best_trial(trials: Iterable[TrialRecord], objective: ObjectiveSpec) -> TrialRecord | None:
    """Return the trial with the best score; of equal ones the one that trained less, then the earlier one."""
    sign = 1.0 if objective.mode == "max" else -1.0
    scored = [(sign * score, trial) for trial in trials if (score := trial.score(objective)) is not None]
    if not scored:
        return None
    return max(scored, key=lambda pair: (pair[0], -pair[1].step, -pair[1].number))[1]
