"""What run.json holds: everything about one run that is not a metric or a checkpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rlplatform.artifacts.provenance import GitRevision, Machine
from rlplatform.artifacts.run_state import RunState
from rlplatform.specs.run import Backend, EnvState


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Attempt(_Part):
    """One process's work on a run."""

    started_at: datetime
    start_step: int
    machine: Machine
    command: str
    ended_at: datetime | None = None
    """None while it goes on; when the process was killed, nobody knows."""
    end_step: int | None = None
    reason: str | None = None
    """Why it ended. None: it goes on."""


class Amendment(_Part):
    """A change of the spec of a run that had already trained."""

    at: datetime
    step: int
    """Environment steps trained before it."""
    changes: dict[str, tuple[JsonValue, JsonValue]]
    """Old and new value by field path, such as ``budget.total_timesteps``."""
    old_digest: str
    """`RunSpec.training_digest` before the change; checkpoints written under it are still this run's."""
    note: str | None = None


class RunProgress(_Part):
    """How far a run has come."""

    step: int = 0
    total: int
    episode_return: float | None = None
    """Mean return of the latest training episodes; None before the first one ends."""
    fps: float | None = None
    """Environment steps per second."""
    updated_at: datetime | None = None


class RunRecord(_Part):
    """The contents of run.json."""

    format: Literal[1] = 1
    id: str
    name: str
    algorithm: str
    env: str
    seed: int
    state: RunState = "created"
    reason: str | None = None
    """Why it is in this state, in words."""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    spec_digest: str
    """`RunSpec.training_digest` of spec.yaml as it is now."""
    env_backend: Backend
    env_state: EnvState
    progress: RunProgress
    result: dict[str, JsonValue] | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    """How often it was started again after its process or machine died."""
    attempts: tuple[Attempt, ...] = ()
    amendments: tuple[Amendment, ...] = ()
    command: str
    job: str | None = None
    """Id of the job that made it; None outside `rlplatform jobs`."""
    git: GitRevision | None = None
    machine: Machine
    versions: dict[str, str]
