"""PB2, in a module of its own: what Ray's is built on takes two seconds to import."""

from __future__ import annotations

import warnings
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers.pb2 import PB2

from rlplatform.tune.schedulers import Population


class Pb2(Population, PB2):
    """Population based bandits."""

    MEMORY = (*Population.MEMORY, "data", "current", "last_exploration_time")

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn tells of each fit that ends at a bound
            return super()._get_new_config(trial, trial_to_clone)
