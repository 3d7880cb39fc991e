"""What a run tells of itself while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """How far a run is; picklable, so that it travels between processes."""

    run_id: str
    state: str
    """A state of `artifacts.run_state`."""
    step: int = 0
    """Environment steps done."""
    total_timesteps: int = 0
    """Environment steps of the budget."""
    fps: float | None = None
    """Environment steps for each second of this attempt, evaluation and checkpoints included."""
    rollout_return: float | None = None
    """Mean return of the latest training episodes."""
    eval_return: float | None = None
    """Mean return of the latest evaluation."""
    eta_s: float | None = None
    """Seconds until the budget is done at this speed."""


class Listener(Protocol):
    """Who wants to know."""

    def on_progress(self, progress: Progress) -> None:
        """Take the progress after a step; called at every rollout boundary, so return at once."""
        ...


class SilentListener:
    """Nobody wants to know."""

    def on_progress(self, progress: Progress) -> None:
        """Do nothing."""
