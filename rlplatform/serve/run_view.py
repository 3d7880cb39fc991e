"""What routes want to know of runs, and what can be told of them without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import ResourceError


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    state: str
    step: int
    """Environment steps trained."""
    total: int
    """Environment steps of its budget."""

    @property
    def progress(self) -> float:
        """Share of the budget that is done, in [0, 1]."""
        return min(1.0, self.step / self.total)


class Runs(Protocol):
    """What routes ask about runs. `runs.RunService` asks Ray."""

    async def statuses(self, run_paths: Sequence[Path]) -> list[RunStatus]:
        """Return how far runs are."""

    async def environments(self) -> list[dict[str, Any]]:
        """Return every environment of the catalog with its spaces."""

    async def evaluate(
        self, run_path: Path, which: Literal["best", "last"], n_episodes: int, seed: int, *, deterministic: bool
    ) -> dict[str, Any]:
        """Play episodes with a run's policy."""


class RecordedRuns:
    """`Runs` without Ray: what run.json says."""

    async def statuses(self, run_paths: Sequence[Path]) -> list[RunStatus]:
        """See `Runs.statuses`."""
        return [recorded_status(path) for path in run_paths]

    async def environments(self) -> list[dict[str, Any]]:
        """See `Runs.environments`."""
        raise ResourceError(_NO_RAY)

    async def evaluate(
        self, run_path: Path, which: Literal["best", "last"], n_episodes: int, seed: int, *, deterministic: bool
    ) -> dict[str, Any]:
        """See `Runs.evaluate`."""
        raise ResourceError(_NO_RAY)


_NO_RAY = "The service runs without Ray, and makes no environments. Start it with `rlplatform serve`."


def recorded_status(run_path: Path) -> RunStatus:
    """Return how far a run is as its run.json has it."""
    record = RunDir(run_path).read()
    ended = record.attempts[-1].end_step if record.attempts else None
    return RunStatus(record.state, max(record.progress.step, ended or 0), record.progress.total)
