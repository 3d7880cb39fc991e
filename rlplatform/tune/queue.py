"""Where Ray Tune gets its trials from: those that a search left unfinished, then what the sampler suggests.

Tune is given whole trials instead of a search algorithm's points, so that a trial has the same id before and after the
death of the driver, and is never started beyond what may train at once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ray.tune import CheckpointConfig, PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.search import SearchAlgorithm

from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.specs.search import SearchSpec
from rlplatform.tune.kept_scheduler import KeptScheduler
from rlplatform.tune.ledger import Ledger
from rlplatform.tune.samplers import Sampler
from rlplatform.tune.trainable import BEST, FAILED, SEARCH, VALUE, RunTrainable

TRAINABLE = RunTrainable.__name__
KEPT_CHECKPOINTS = 3
"""Tune's own checkpoints of a trial; with fewer, PBT may find that of a trial to copy gone."""


class TrialQueue(SearchAlgorithm):
    """Hands trials to Tune."""

    def __init__(
        self,
        search: SearchDir,
        spec: SearchSpec,
        sampler: Sampler,
        scheduler: KeptScheduler,
        ledger: Ledger,
        resources: PlacementGroupFactory,
        max_failures: int,
    ) -> None:
        """Take what a search is made of; trials are made once Tune has told where it stores them."""
        self._search, self._spec = search, spec
        self.sampler, self._scheduler, self._ledger = sampler, scheduler, ledger
        self._resources, self._max_failures = resources, max_failures
        self._storage: Any = None
        self._unfinished: list[Trial] = []
        self._live: set[str] = set()
        self._saved: Mapping[str, tuple[str, str]] = {}
        self._memory: bytes | None = None

    def take_up(self, trials: Mapping[str, tuple[str, str]], memory: bytes) -> None:
        """Go on with a search, before Tune asks for its first trial.

        Args:
            trials: Tune's own state of each trial that was left unfinished, by id.
            memory: What the scheduler remembers.
        """
        self._saved, self._memory = trials, memory

    @property
    def total_samples(self) -> int:
        """Trials at most."""
        return self._spec.n_trials

    def add_configurations(self, experiments: Any) -> None:
        """Take Tune's storage, and make the trials that were left unfinished."""
        self._storage = experiments[0].storage
        trials = {record.trial_id: self._restored(record.trial_id) for record in self._ledger.records()}
        self._unfinished = [trials[record.trial_id] for record in self._ledger.records() if not record.ended_for_good]
        if self._memory is not None:
            self._scheduler.remember(self._memory, trials)

    def next_trial(self) -> Trial | None:
        """Return the next trial; None while as many train as may, and when there is none left."""
        if self._finished or (not self._scheduler.POPULATION and len(self._live) >= self._scheduler.concurrent):
            return None
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._live.add(trial.trial_id)
            return trial
        if len(self._ledger) >= self._spec.n_trials:
            return None
        number = len(self._ledger)
        point = self.sampler.suggest(number)
        if point is None:
            self._finished = True
            return None
        trial_id = self._ledger.add(number, point)
        self._live.add(trial_id)
        return self._trial(trial_id, point)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the sampler what became of a trial."""
        self._live.discard(trial_id)
        known = result is not None and not error and not result.get(FAILED)
        of = BEST if self._spec.objective.of == "best" else VALUE
        self.sampler.tell(int(trial_id), result.get(of) if known and result is not None else None)

    @property
    def is_empty(self) -> bool:
        """Whether every trial had ended before this attempt began."""
        records = self._ledger.records()
        return len(records) >= self._spec.n_trials and all(record.ended_for_good for record in records)

    def is_finished(self) -> bool:
        """Return whether no further trial will come, and no paused one go on: Tune then gives up spare actors."""
        if self._finished:
            return True
        if self._unfinished or (self._scheduler.POPULATION and self._live):
            return False
        return len(self._ledger) >= self._spec.n_trials

    def _trial(self, trial_id: str, point: Mapping[str, Any]) -> Trial:
        trial = Trial(
            TRAINABLE,
            config={SEARCH: str(self._search.path), **point},
            trial_id=trial_id,
            storage=self._storage,
            evaluated_params=dict(point),
            experiment_tag=trial_id,
            placement_group_factory=self._resources,
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            max_failures=self._max_failures,
        )
        if self._scheduler.POPULATION:
            trial.set_status(Trial.PAUSED)
        return trial

    def _restored(self, trial_id: str) -> Trial:
        """Return a trial as it was; one that has ended only lends its name to what the scheduler remembers."""
        record = self._ledger[trial_id]
        if record.ended_for_good or trial_id not in self._saved:
            trial = self._trial(trial_id, record.point)
            if record.ended_for_good:
                trial.set_status(Trial.TERMINATED)
            return trial
        state, metadata = self._saved[trial_id]
        trial = Trial.from_json_state(state)
        trial.restore_run_metadata(metadata)
        assert trial.storage is not None
        storage = copy.copy(trial.storage)  # the search's folder may have moved since
        storage.storage_filesystem = self._storage.storage_filesystem
        storage.storage_fs_path = self._storage.storage_fs_path
        storage.experiment_dir_name = self._storage.experiment_dir_name
        trial.set_storage(storage)
        trial.set_config({**trial.config, SEARCH: str(self._search.path)})
        trial.max_failures = self._max_failures
        trial.set_status(Trial.PAUSED if self._scheduler.POPULATION else Trial.PENDING)
        return trial
