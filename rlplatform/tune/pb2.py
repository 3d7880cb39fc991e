"""PB2, in a module of its own: what Ray's is built on takes two seconds to import."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers.pb2 import PB2

from rlplatform.specs.search_space import Dimension, LogUniform
from rlplatform.tune.kept_scheduler import Population


class Pb2(Population, PB2):
    """Population based bandits, whose model sees a logarithmic range on its logarithm."""

    MEMORY = (*Population.MEMORY, "data", "current", "last_exploration_time")

    def __init__(self, space: Mapping[str, Dimension], **options: Any) -> None:
        """Take what Ray's scheduler takes.

        Args:
            space: The parameters that change, all of them ranges of real numbers.
            options: Ray's, but for its bounds.
        """
        self._space = space
        lows, highs = (
            self._for_model({path: dimension.extremes()[end] for path, dimension in space.items()}) for end in (0, 1)
        )
        bounds = {path: [lows[path], highs[path]] for path in space}
        super().__init__(hyperparam_bounds=bounds, custom_explore_fn=self._from_model, **options)

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Trial) -> Any:
        with self._as_model_sees(trial):
            return super()._save_trial_state(state, time, result, trial)

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> Any:
        with warnings.catch_warnings(), self._as_model_sees(trial_to_clone):
            warnings.simplefilter("ignore")  # scikit-learn tells of each fit that ends at a bound
            return super()._get_new_config(trial, trial_to_clone)

    @contextmanager
    def _as_model_sees(self, trial: Trial) -> Iterator[None]:
        config, trial.config = trial.config, self._for_model(trial.config)
        try:
            yield
        finally:
            trial.config = config

    def _for_model(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {key: math.log(value) if self._is_logarithmic(key) else value for key, value in config.items()}

    def _from_model(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return what was proposed as trials take it, within the space."""
        for path, dimension in self._space.items():
            low, high = dimension.extremes()
            value = math.exp(config[path]) if self._is_logarithmic(path) else config[path]
            config[path] = float(min(max(value, low), high))
        return config

    def _is_logarithmic(self, path: str) -> bool:
        return isinstance(self._space.get(path), LogUniform)
