"""The scheduler that a search asks for: Ray Tune's, built from its spec, each told every report once."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)

from rlplatform.specs import search_schedulers as specs
from rlplatform.specs.search import SearchSpec
from rlplatform.tune.kept_scheduler import CLOCK, KeptScheduler, Population
from rlplatform.tune.points import draw, move
from rlplatform.tune.trainable import VALUE


class Asha(KeptScheduler, AsyncHyperBandScheduler):
    """ASHA."""

    MEMORY = ("_brackets", "_trial_info", "_num_stopped")


class Median(KeptScheduler, MedianStoppingRule):
    """Median stopping."""

    MEMORY = ("_results", "_stopped_trials")


class HyperBand(KeptScheduler, HyperBandScheduler):
    """HyperBand."""

    MEMORY = ("_hyperbands", "_trial_info", "_state", "_num_stopped")
    POPULATION = True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial, which waits until it is chosen."""
        super().on_trial_add(tune_controller, trial)
        bracket, _ = self._trial_info[trial]
        if bracket.continue_trial(trial):
            bracket.trials_to_unpause.add(trial)


class Pbt(Population, PopulationBasedTraining):
    """Population based training."""


def make_scheduler(spec: SearchSpec, concurrent: int) -> KeptScheduler:
    """Return the scheduler that a search asks for, at its beginning.

    Args:
        spec: The search.
        concurrent: Trials that may train at once.
    """
    asked = spec.scheduler
    common: dict[str, Any] = {"time_attr": CLOCK, "metric": VALUE, "mode": spec.objective.mode}
    match asked:
        case specs.ASHAScheduler():
            grace = min(asked.grace_steps, spec.max_steps)
            return Asha(
                **common, grace_period=grace, max_t=spec.max_steps, reduction_factor=asked.reduction_factor
            ).keep(1, concurrent, spec.seed)
        case specs.MedianScheduler():
            return Median(
                **common,
                grace_period=asked.grace_steps,
                min_samples_required=asked.min_trials,
                min_time_slice=2**62,  # It would pause trials to give others time; here they have actors.
            ).keep(1, concurrent, spec.seed)
        case specs.HyperBandScheduler():
            most = max(1, spec.max_steps // asked.every_steps)
            return HyperBand(**common, max_t=most, reduction_factor=asked.reduction_factor).keep(
                asked.every_steps, concurrent, spec.seed
            )
        case specs.PBTScheduler():
            return Pbt(
                **common,
                perturbation_interval=1,
                quantile_fraction=asked.quantile_fraction,
                custom_explore_fn=lambda config: _mutated(spec, asked, config),
                log_config=False,
                synch=asked.synchronous,
            ).keep(asked.every_steps, concurrent, spec.seed)
        case specs.PB2Scheduler():
            from rlplatform.tune.pb2 import Pb2  # imports scikit-learn: two seconds

            return Pb2(
                {path: spec.space[path] for path in spec.mutations},
                **common,
                perturbation_interval=1,
                quantile_fraction=asked.quantile_fraction,
                log_config=False,
                synch=asked.synchronous,
            ).keep(asked.every_steps, concurrent, spec.seed)
        case _:
            return KeptScheduler().keep(1, concurrent, spec.seed)


def _mutated(spec: SearchSpec, asked: specs.PBTScheduler, config: dict[str, Any]) -> dict[str, Any]:
    """Change what PBT mutates: drawn anew, or moved. Ray's own way multiplies, whatever the range and its scale."""
    rng = np.random.default_rng(np.random.randint(2**31))
    for path in spec.mutations:
        dimension = spec.space[path]
        anew = rng.random() < asked.resample_probability
        config[path] = draw(dimension, rng) if anew else move(dimension, config[path], float(rng.choice(asked.factors)))
    return config
