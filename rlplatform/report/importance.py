"""Which parameters of a search mattered: how much of the spread of the results each explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

MIN_TRIALS = 6
"""Below this, a forest of trees says nothing about anything."""


@dataclass(frozen=True)
class Importance:
    """How much one parameter explains."""

    parameter: str
    share: float
    """Of the variance that single parameters and their interactions explain; all shares add up to 1."""


def importances(
    points: Sequence[Mapping[str, JsonValue]], values: Sequence[float], *, seed: int = 0
) -> list[Importance]:
    """Return the importance of each parameter that every trial had, the largest first.

    Parameters that only some trials had (conditional ones), or that never varied, are left out. Nothing is returned
    for fewer than six trials, or where all came out alike. Numbers of one sign that span a factor of 100 or more are
    taken on a log scale.

    Args:
        points: The parameters of each trial, by dotted path.
        values: What each trial came to, as many, all finite.
        seed: Seed of the forest, so that the same trials give the same shares.

    Source: Hutter, Hoos and Leyton-Brown (2014), An Efficient Approach for Assessing Hyperparameter Importance
    (fANOVA), as `optuna.importance` does it.
    """
    shared = [name for name in (points[0] if points else ()) if all(name in point for point in points)]
    columns = {name: [point[name] for point in points] for name in shared}
    varied = {name: column for name, column in columns.items() if any(value != column[0] for value in column)}
    if len(points) < MIN_TRIALS or not varied or max(values) == min(values):
        return []
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells stderr of every study
    distributions = {name: _distribution(column) for name, column in varied.items()}
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    for point, value in zip(points, values, strict=True):
        params = {name: _plain(point[name]) for name in varied}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return [Importance(name, float(share)) for name, share in shares.items()]


def spans_decades(numbers: Sequence[float]) -> bool:
    """Return whether positive numbers span a factor of 100 or more, so that a log scale shows them better."""
    return min(numbers) > 0 and max(numbers) / min(numbers) >= 100


def as_numbers(values: Sequence[JsonValue]) -> list[float] | None:
    """Return values as numbers; None unless all of them are finite numbers (truth values are not)."""
    numbers = [
        float(value)
        for value in values
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ]
    return numbers if len(numbers) == len(values) else None


def _distribution(column: Sequence[JsonValue]) -> Any:
    """Return the optuna distribution of what was really tried: PBT moves parameters out of the space they began in."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = as_numbers(column)
    if numbers is not None:
        return FloatDistribution(min(numbers), max(numbers), log=spans_decades(numbers))
    return CategoricalDistribution(sorted({_plain(value) for value in column}, key=str))


def _plain(value: JsonValue) -> Any:
    """Return a value that a categorical distribution can hold: lists and mappings as text."""
    return str(value) if isinstance(value, (list, dict)) else value
