"""Optuna as the sampler of a search: TPE, Gaussian process, CMA-ES."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna

from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_space import Choice, Dimension, Grid, Integer, LogUniform, Uniform
from rlplatform.tune.points import Point, walk


class OptunaSampler:
    """A study in memory; what survives is the search's own folder, which holds it whole."""

    def __init__(self, spec: SearchSpec) -> None:
        """Begin a study."""
        self._space = spec.space
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            direction="maximize" if spec.objective.mode == "max" else "minimize", sampler=_sampler(spec)
        )
        self._asked: dict[int, optuna.Trial] = {}

    def suggest(self, number: int) -> Point | None:
        """Return what the study asks for, given the trials told so far."""
        trial = self._asked[number] = self._study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return walk(self._space, number, lambda path, dimension: _ask(trial, path, dimension))

    def tell(self, number: int, value: float | None) -> None:
        """Let the study learn."""
        trial = self._asked.pop(number)
        if value is None or not np.isfinite(value):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)


def _ask(trial: optuna.Trial, path: str, dimension: Dimension) -> Any:
    match dimension:
        case Uniform(low=low, high=high):
            return trial.suggest_float(path, low, high)
        case LogUniform(low=low, high=high):
            return trial.suggest_float(path, low, high, log=True)
        case Integer(low=low, high=high, log=log, step=step):
            return trial.suggest_int(path, low, high, log=log, step=step)
        case Choice(values=values) | Grid(values=values):
            # By index, for Optuna takes only numbers, strings and truth values for choices.
            return values[trial.suggest_categorical(path, range(len(values)))]


def _sampler(spec: SearchSpec) -> optuna.samplers.BaseSampler:
    n_startup, seed = spec.sampler.n_startup, spec.seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match spec.sampler.name:
            case "tpe":
                # Trials in flight count as bad, so that those suggested side by side differ.
                return optuna.samplers.TPESampler(n_startup_trials=n_startup, seed=seed, constant_liar=True)
            case "gp":
                return optuna.samplers.GPSampler(n_startup_trials=n_startup, seed=seed)
            case _:
                return optuna.samplers.CmaEsSampler(n_startup_trials=n_startup, seed=seed)
