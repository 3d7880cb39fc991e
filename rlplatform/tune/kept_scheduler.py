"""What Ray Tune's schedulers get from us: a memory that can be written down, and a limit of trials at once.

Ray writes no scheduler down: after a restore ASHA has empty rungs and PBT no scores. Here what a scheduler remembers is
pickled with trials replaced by their ids, so that it goes on as if nothing had happened.
"""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from rlplatform.tune.trainable import FAILED, GENERATION, ITERATION, STEP, VALUE

CLOCK = "clock"
"""A trial's age in the scheduler's own unit."""


class KeptScheduler(FIFOScheduler):
    """Trains every trial to its end; of the others, what they have besides Ray's: a memory, and a limit."""

    MEMORY: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold what the scheduler has learned."""
    POPULATION: ClassVar[bool] = False
    """Whether it must know all trials from the beginning, and decides itself which of them train."""

    unit: int = 1
    """Environment steps of one tick of the clock."""
    concurrent: int = 1
    """Trials that train at once."""

    def __init__(self, **options: Any) -> None:
        """Take what Ray's scheduler takes."""
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def keep(self, unit: int, concurrent: int, seed: int) -> Self:
        """Set what Ray's constructors do not know."""
        self.unit, self.concurrent = unit, concurrent
        self._generators: tuple[Any, Any] = (random.Random(seed).getstate(), np.random.RandomState(seed).get_state())
        self._seen: dict[str, tuple[int, int]] = {}
        self._restored: set[str] = set()
        return self

    def memory(self) -> bytes:
        """Return what the scheduler has learned, with trials by their ids."""
        return _dump({name: getattr(self, name) for name in ("_seen", "_generators", *self.MEMORY)})

    def remember(self, memory: bytes, trials: Mapping[str, Trial]) -> None:
        """Take back what `memory` returned.

        Args:
            memory: What was returned.
            trials: Every trial that was ever added, by id; those that go on will be added again.
        """
        vars(self).update(_load(memory, trials))
        self._restored = set(trials)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take a new trial; one that is remembered is known."""
        self._keep_actors(tune_controller, trial)
        if trial.trial_id in self._restored:
            self._restored.discard(trial.trial_id)
            return
        with self._own_generators():
            super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on a report; one that was decided on before its trial was taken up again is passed over."""
        report = (result[GENERATION], result[ITERATION])
        if report <= self._seen.get(trial.trial_id, (0, 0)):
            return str(TrialScheduler.CONTINUE)
        self._seen[trial.trial_id] = report
        with self._own_generators():
            return str(super().on_trial_result(tune_controller, trial, self._on_clock(result)))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take the last report of a trial; a failed one has none."""
        if result.get(FAILED) or VALUE not in result:
            super().on_trial_error(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, self._on_clock(result))

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the trial to train next; None while as many train as may."""
        busy = sum(trial.status in (Trial.RUNNING, Trial.PENDING) for trial in tune_controller.get_trials())
        return None if busy >= self.concurrent else super().choose_trial_to_run(tune_controller)

    def _keep_actors(self, tune_controller: Any, trial: Trial) -> None:
        """Have Tune keep the actors of paused trials for the next ones; by itself it keeps one, and starts new ones."""
        cache = getattr(getattr(tune_controller, "_tune_controller", None), "_actor_cache", None)
        if self.POPULATION and cache is not None and not cache.total_max_objects:
            cache.increase_max(trial.placement_group_factory, self.concurrent)

    @contextmanager
    def _own_generators(self) -> Iterator[None]:
        """Have the scheduler draw from generators of its own; Ray's draw from the global ones, as everybody else."""
        before = random.getstate(), np.random.get_state()
        random.setstate(self._generators[0])
        np.random.set_state(self._generators[1])
        try:
            yield
        finally:
            self._generators = random.getstate(), np.random.get_state()
            random.setstate(before[0])
            np.random.set_state(before[1])

    def _on_clock(self, result: dict[str, Any]) -> dict[str, Any]:
        return {**result, CLOCK: result[STEP] // self.unit}


class Population(KeptScheduler):
    """What PBT and PB2 share."""

    _trial_state: dict[Trial, Any]
    _next_perturbation_sync: float
    _perturbation_interval: float

    MEMORY: ClassVar[tuple[str, ...]] = (
        "_trial_state",
        "_next_perturbation_sync",
        "_num_checkpoints",
        "_num_perturbations",
    )
    POPULATION = True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial; one whose actor was lost keeps its score."""
        if trial not in self._trial_state:
            super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the trial to train next; when all wait for one that ended early, they wait no longer."""
        chosen = super().choose_trial_to_run(tune_controller)
        states = {trial.status for trial in tune_controller.get_trials()}
        if chosen is None and Trial.PAUSED in states and not states & {Trial.RUNNING, Trial.PENDING}:
            self._next_perturbation_sync += self._perturbation_interval
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen


class _Pickler(pickle.Pickler):
    """Writes trials as their ids, and waits for checkpoints that are being written."""

    def persistent_id(self, obj: Any) -> str | None:
        return str(obj.trial_id) if isinstance(obj, Trial) else None

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__name__ != "_FutureTrainingResult":
            return NotImplemented
        done = obj.resolve()
        return _itself, (done.checkpoint if done is not None else None,)


class _Unpickler(pickle.Unpickler):
    """Reads ids as the trials of this process."""

    def __init__(self, file: io.BytesIO, trials: Mapping[str, Trial]) -> None:
        super().__init__(file)
        self._trials = trials

    def persistent_load(self, pid: Any) -> Trial:
        return self._trials[pid]


def _itself(value: Any) -> Any:
    return value


def _dump(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def _load(data: bytes, trials: Mapping[str, Trial]) -> Any:
    return _Unpickler(io.BytesIO(data), trials).load()
