"""What a search tells of itself while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlplatform.artifacts.search_record import SearchState, TrialRecord


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is."""

    search_id: str
    state: SearchState
    trials: tuple[TrialRecord, ...]
    """Every trial suggested so far, by number."""
    best: TrialRecord | None
    n_trials: int
    """Trials that the budget and the grid allow."""
    elapsed_s: float
    """Wall-clock seconds of all attempts."""
    fps: float | None
    """Environment steps per second of this attempt, over all trials."""
    eta_s: float | None
    """Seconds until every trial has trained its whole budget at this speed: an upper bound where bad ones are
    stopped early."""

    @property
    def trained_steps(self) -> int:
        """Environment steps spent, over all trials and seeds."""
        return sum(trial.trained_steps for trial in self.trials)

    @property
    def ended(self) -> int:
        """Trials with which nothing more happens."""
        return sum(trial.ended_for_good for trial in self.trials)


@dataclass(frozen=True)
class SearchResult:
    """How an attempt at a search ended."""

    search_id: str
    state: SearchState
    reason: str
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None


OnSearchProgress = Callable[[SearchProgress], None]
"""Called about twice a second."""
