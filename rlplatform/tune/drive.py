"""One process's work on a search: Ray Tune's loop around our trials."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ray import tune
from ray.tune import CheckpointConfig, PlacementGroupFactory
from ray.tune.stopper import Stopper

from rlplatform import names
from rlplatform.artifacts.mirror import Push
from rlplatform.artifacts.run_state import AT_REST
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.artifacts.search_record import SearchState, TrialState, best_trial
from rlplatform.cluster.resources import Booking
from rlplatform.cluster.runner import Interrupts
from rlplatform.errors import RlPlatformError
from rlplatform.specs.search import SearchSpec
from rlplatform.tune.ledger import Ledger
from rlplatform.tune.progress import OnSearchProgress, SearchProgress, SearchResult
from rlplatform.tune.queue import TrialQueue
from rlplatform.tune.samplers import make_sampler
from rlplatform.tune.schedulers import make_scheduler
from rlplatform.tune.state import SearchJournal, read_state
from rlplatform.tune.trainable import RunTrainable

RECORD_S = 5.0
"""Seconds between two writes of the elapsed time into search.json."""
HOPELESS = 5
"""Trials that fail before any trial has a value, after which no other is tried: the rest would fail as they did."""
PUSH_S = 60.0
"""Seconds at least between two copies of the folder, which are made when a trial has ended."""


@dataclass(frozen=True)
class Ending:
    """Why a search ends before its trials do."""

    search: SearchState
    trials: TrialState
    """What becomes of trials that have not ended."""
    reason: str


class Drive:
    """Drives a search whose lock this process holds, on the Ray that it is connected to."""

    def __init__(
        self,
        search: SearchDir,
        spec: SearchSpec,
        asked: Booking,
        concurrent: int,
        max_retries: int,
        interrupts: Interrupts,
        on_progress: OnSearchProgress | None,
        push: Push,
    ) -> None:
        """Build the search, or what is left of it.

        Args:
            search: Its folder.
            spec: What it searches.
            asked: What each trial books.
            concurrent: Trials that train at once.
            max_retries: How often a trial is taken up again after its process or machine died.
            interrupts: How often this process was asked to stop.
            on_progress: Who wants to know.
            push: Copies the search's folder to where another machine can go on from.
        """
        self._search, self._spec, self._concurrent, self._push = search, spec, concurrent, push
        self._interrupts, self._on_progress = interrupts, on_progress
        saved = read_state(search, spec)
        self._ledger = Ledger(spec.seeds, saved.records if saved else ())
        sampler = saved.sampler if saved else make_sampler(spec)
        scheduler = make_scheduler(spec, concurrent)
        resources = PlacementGroupFactory([dict(bundle) for bundle in asked.bundles], strategy=asked.strategy)
        self._queue = TrialQueue(search, spec, sampler, scheduler, self._ledger, resources, max_retries)
        self._journal = SearchJournal(search, spec, self._ledger, self._queue, scheduler, self._tell)
        self._scheduler, self._saved = scheduler, saved
        self._began, self._began_steps, self._recorded_at = time.monotonic(), self._ledger.trained_steps, 0.0
        self._pushed, self._pushed_at = 0, time.monotonic()
        self._elapsed_before = search.read().elapsed_s

    def run(self) -> SearchResult:
        """Search until every trial has ended, the budget is spent, or somebody stops it."""
        record = self._search.read()
        started = record.started_at or datetime.now(UTC)
        self._search.rewrite_trials(self._ledger.records())
        self._search.update(
            state="running", reason=None, started_at=started, ended_at=None, attempts=record.attempts + 1
        )
        stopper = _Stopper(self)
        try:
            if self._saved is not None:
                self._journal.set_state(vars(self._saved))
            self._tune(stopper)
        except BaseException as error:
            known = isinstance(error, RlPlatformError)
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "ended at once" if interrupted else str(error) if known else f"{type(error).__name__}: {error}"
            self._end(Ending("stopped" if interrupted else "failed", "paused", reason))
            raise
        return self._end(stopper.ending or self._outcome())

    def ending(self) -> Ending | None:
        """Return why the search ends now; None while it goes on.

        Raises:
            KeyboardInterrupt: It was asked twice to stop.
        """
        budget = self._spec.budget
        if self._interrupts.count > 1:
            raise KeyboardInterrupt
        if self._interrupts.count:
            return Ending("stopped", "paused", f"interrupted by {self._interrupts.name}")
        failed = [record for record in self._ledger.records() if record.state == "failed"]
        if len(failed) == HOPELESS and not any(record.iteration for record in self._ledger.records()):
            return Ending("failed", "paused", f"the first {HOPELESS} trials all failed, the first: {failed[0].reason}")
        if budget.steps is not None and self._ledger.trained_steps >= budget.steps:
            return Ending("completed", "stopped", f"the search's {budget.steps} steps are trained")
        if budget.hours is not None and time.monotonic() - self._began >= budget.hours * 3600:
            return Ending("stopped", "paused", f"the search's {budget.hours:g} hours are over")
        return None

    def _tune(self, stopper: Stopper) -> None:
        if self._queue.is_empty:
            return  # Tune would stumble over a search without a trial to run.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self._concurrent)  # It would start one after the other.
        try:
            tune.run(
                RunTrainable,
                name=names.TUNE_DIR,
                storage_path=str(self._search.path),
                search_alg=self._queue,
                scheduler=self._scheduler,
                stop=stopper,
                callbacks=[self._journal],
                checkpoint_config=CheckpointConfig(),
                reuse_actors=True,
                raise_on_failed_trial=False,
                verbose=0,
            )
        finally:
            del os.environ["TUNE_MAX_PENDING_TRIALS_PG"]

    def _outcome(self) -> Ending:
        records = self._ledger.records()
        failed = [record for record in records if record.state == "failed"]
        if records and len(failed) == len(records):
            return Ending("failed", "failed", f"all {len(failed)} trials failed, the first: {failed[0].reason}")
        return Ending("completed", "stopped", "every trial has ended")

    def _end(self, ending: Ending) -> SearchResult:
        for record in self._ledger.records():
            if not record.ended_for_good:
                self._leave_trial(record.trial_id, ending)
        self._journal.write()
        records = self._ledger.records()
        best = best_trial(records, self._spec.objective)
        self._search.update(
            state=ending.search,
            reason=ending.reason,
            ended_at=datetime.now(UTC),
            elapsed_s=self._elapsed,
            best_trial=None if best is None else best.trial_id,
            best_value=None if best is None else best.score(self._spec.objective),
        )
        result = SearchResult(self._search.id, ending.search, ending.reason, records, best)
        if self._on_progress is not None:
            self._on_progress(self._progress(ending.search))
        return result

    def _leave_trial(self, trial_id: str, ending: Ending) -> None:
        """Note that a trial trains no more, also in runs whose process was ended before it could."""
        if ending.trials == "paused":
            record = self._ledger.note(trial_id, state="paused", reason=ending.reason)
        else:
            self._ledger.end(trial_id, ending.trials, ending.reason)
            record = self._ledger[trial_id]
        for run in self._search.runs(record):
            if run.run_path.exists() and not run.is_alive() and run.read().state not in AT_REST:
                run.end_attempt("paused" if ending.trials == "paused" else "stopped", record.step, ending.reason)

    # --- progress ----------------------------------------------------------------------------------------------------

    @property
    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._began

    def _tell(self) -> None:
        now = time.monotonic()
        ended = sum(record.ended_for_good for record in self._ledger.records())
        if ended > self._pushed and now - self._pushed_at >= PUSH_S:
            self._pushed, self._pushed_at = ended, now
            self._push()
        if now - self._recorded_at >= RECORD_S:
            self._recorded_at = now
            self._search.update(elapsed_s=self._elapsed)
        if self._on_progress is not None:
            self._on_progress(self._progress("running"))

    def _progress(self, state: SearchState) -> SearchProgress:
        records = self._ledger.records()
        trained = self._ledger.trained_steps - self._began_steps
        took = time.monotonic() - self._began
        fps = trained / took if trained else None
        return SearchProgress(
            search_id=self._search.id,
            state=state,
            trials=records,
            best=best_trial(records, self._spec.objective),
            n_trials=self._spec.n_trials,
            elapsed_s=self._elapsed,
            fps=fps,
            eta_s=self._steps_left() / fps if fps else None,
        )

    def _steps_left(self) -> float:
        spec, records = self._spec, self._ledger.records()
        open_steps = sum(max(0, spec.max_steps - record.step) for record in records if not record.ended_for_good)
        left = (open_steps + (spec.n_trials - len(records)) * spec.max_steps) * len(spec.seeds)
        allowed = math.inf if spec.budget.steps is None else spec.budget.steps - self._ledger.trained_steps
        return max(0.0, min(left, allowed))


class _Stopper(Stopper):
    """Ends Tune's loop when the search ends before its trials do."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self.ending: Ending | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave the single trial to its scheduler."""
        return False

    def stop_all(self) -> bool:
        """Return whether the search ends now."""
        self.ending = self.ending or self._drive.ending()
        return self.ending is not None
