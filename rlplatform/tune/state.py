"""What a search must remember over the death of its driver, written after every event that changed it.

Ray Tune writes its own state every ten seconds, in several files, and no scheduler's. A trial that reported after the
last write would report again to a scheduler that has forgotten it. Here one file holds suggestions, scheduler
and trials of one moment; it is replaced in one rename, before anybody can read of that moment elsewhere.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ray.exceptions import RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial

from rlplatform.artifacts.atomic import storage_errors, write_bytes
from rlplatform.artifacts.run_state import AT_REST
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.errors import CheckpointError
from rlplatform.logs import get_logger
from rlplatform.names import TRIALS_DIR
from rlplatform.specs.search import SearchSpec
from rlplatform.tune.kept_scheduler import KeptScheduler
from rlplatform.tune.ledger import Ledger
from rlplatform.tune.queue import TrialQueue
from rlplatform.tune.samplers import Sampler
from rlplatform.tune.trainable import BEST, FAILED, GENERATION, ITERATION, REASON, STEP, TRAINED, VALUE

FORMAT = 1
PROGRESS_S = 0.5
"""Seconds between two reports of progress."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class SavedState:
    """One moment of a search."""

    format: int
    spec_digest: str
    records: tuple[TrialRecord, ...]
    trials: dict[str, tuple[str, str]]
    """Tune's own state of every trial that goes on, by id."""
    sampler: Sampler
    scheduler: bytes


def read_state(search: SearchDir, spec: SearchSpec) -> SavedState | None:
    """Return what a search goes on from; None if it died before there was anything.

    Raises:
        CheckpointError: It was written for another search.yaml, or by another version, or is damaged.
        StorageError: It is there and cannot be read.
    """
    if not search.state_path.exists():
        return None
    with storage_errors(search.state_path):
        data = search.state_path.read_bytes()
    try:
        state = pickle.loads(data)  # our own file; a search's folder is as trusted as a run's
    except (AttributeError, ImportError, LookupError, TypeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(
            f"{search.state_path} cannot be read by this version: {error}. The trials' runs are in "
            f"{search.path / TRIALS_DIR}, and `rlplatform searches report {search.id}` still tells what they came to."
        ) from error
    if not isinstance(state, SavedState) or state.format != FORMAT:
        raise CheckpointError(f"{search.state_path} is of another version. Finish the search with that one.")
    if state.spec_digest != spec.digest():
        raise CheckpointError(
            f"{search.spec_path} was changed since the search began. Put it back, or start a new search."
        )
    return state


class SearchJournal(Callback):
    """Keeps the records of the trials, writes the state, and tells of progress."""

    def __init__(
        self,
        search: SearchDir,
        spec: SearchSpec,
        ledger: Ledger,
        queue: TrialQueue,
        scheduler: KeptScheduler,
        on_step: Callable[[], None],
    ) -> None:
        """Take what makes up the search."""
        self._search, self._spec = search, spec
        self._ledger, self._queue, self._scheduler = ledger, queue, scheduler
        self._on_step = on_step
        self._told_at = 0.0
        self._trials: dict[str, Trial] = {}

    # --- events ------------------------------------------------------------------------------------------------------

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that a trial trains, under the point it has now."""
        self._ledger.begin(trial.trial_id)
        self._note_point(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note what a trial reported."""
        record = self._ledger[trial.trial_id]
        trained = record.trained_steps + result.get(TRAINED, 0)
        if VALUE not in result:
            self._ledger.note(trial.trial_id, trained_steps=trained)
            return
        self._ledger.note(
            trial.trial_id,
            step=result[STEP],
            iteration=result[ITERATION],
            generation=result[GENERATION],
            value=_finite(result[VALUE]),
            best_value=_finite(result[BEST]),
            trained_steps=trained,
        )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note how a trial ended."""
        result = trial.last_result
        if result.get(FAILED):
            self._end(trial, "failed", result[REASON])
        elif result.get(REASON):
            self._end(trial, "completed", result[REASON])
        else:
            self._end(trial, "stopped", f"stopped by {self._spec.scheduler.name} at step {result.get(STEP, 0)}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that a trial was given up."""
        self._end(trial, "failed", _why(trial))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that a trial waits to be taken up from its newest checkpoint."""
        self._ledger.note(trial.trial_id, state="queued", reason=f"{_why(trial)} It is taken up again.")
        _log.warning("trial %s: %s", trial.trial_id, self._ledger[trial.trial_id].reason)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Write down what changed, and tell of progress."""
        self._trials = {trial.trial_id: trial for trial in trials}
        for trial in trials:
            if trial.status == Trial.PAUSED and self._ledger[trial.trial_id].state == "running":
                self._ledger.note(trial.trial_id, state="paused", reason="waits for its turn")
        if self._ledger.is_changed:
            self.write()
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S:
            self._told_at = now
            self._on_step()

    # --- memory ------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return one moment of the search; schedulers' memories name trials by their ids."""
        live = [record.trial_id for record in self._ledger.records() if not record.ended_for_good]
        state = SavedState(
            format=FORMAT,
            spec_digest=self._spec.digest(),
            records=self._ledger.records(),
            trials={trial_id: self._trials[trial_id].get_json_state() for trial_id in live if trial_id in self._trials},
            sampler=self._queue.sampler,
            scheduler=self._scheduler.memory(),
        )
        return {field.name: getattr(state, field.name) for field in fields(state)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a moment; before Tune asks for the first trial."""
        self._queue.take_up(state["trials"], state["scheduler"])

    def write(self) -> None:
        """Write the state, then what people read."""
        state = SavedState(**self.get_state())
        write_bytes(self._search.state_path, pickle.dumps(state, pickle.HIGHEST_PROTOCOL))
        self._search.append_trials(self._ledger.take_changed())

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _note_point(self, trial: Trial) -> None:
        point = {path: value for path, value in trial.config.items() if path in self._spec.space}
        if point != self._ledger[trial.trial_id].point:
            self._ledger.note(trial.trial_id, point=point)

    def _end(self, trial: Trial, state: str, reason: str) -> None:
        self._ledger.end(trial.trial_id, state, reason)
        if state == "completed":
            return  # Its runs say so themselves.
        record = self._ledger[trial.trial_id]
        for run in self._search.runs(record):
            if run.run_path.exists() and run.read().state not in AT_REST:
                run.end_attempt("failed" if state == "failed" else "stopped", record.step, reason)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _why(trial: Trial) -> str:
    error = trial.get_pickled_error()
    if isinstance(error, RayTaskError):
        error = error.cause
    return "Its process or machine died." if error is None or "Actor" in type(error).__name__ else f"{error}"
