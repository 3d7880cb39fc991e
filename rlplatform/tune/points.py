"""Points of a space: how dimensions are walked, and how one value is drawn at random or moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlplatform.specs.search_space import Choice, Dimension, Grid, Integer, LogUniform, Uniform

Point = dict[str, Any]
"""Value by dotted path into a run's spec."""


def walk(space: Mapping[str, Dimension], number: int, choose: Callable[[str, Dimension], Any]) -> Point:
    """Return a point: values that are to be tried in turn by the trial's number, the others as chosen.

    Args:
        space: Dimensions by dotted path.
        number: The trial's number.
        choose: Returns the value of a dimension that is part of the trial.
    """
    point: Point = {}
    for path, dimension in space.items():
        if not dimension.is_active(point):
            continue
        if isinstance(dimension, Grid):
            number, turn = divmod(number, len(dimension.values))
            point[path] = dimension.values[turn]
        else:
            point[path] = choose(path, dimension)
    return point


def draw(dimension: Dimension, rng: np.random.Generator) -> Any:
    """Return a value of a dimension at random."""
    match dimension:
        case Uniform(low=low, high=high):
            return float(rng.uniform(low, high))
        case LogUniform(low=low, high=high):
            return float(np.clip(np.exp(rng.uniform(np.log(low), np.log(high))), low, high))
        case Integer(low=low, high=high, log=True):
            value = np.exp(rng.uniform(np.log(low - 0.5), np.log(high + 0.5)))
            return int(np.clip(np.round(value), low, high))
        case Integer() | Choice() | Grid():
            options = dimension.options()
            assert options is not None
            return options[int(rng.integers(len(options)))]


def move(dimension: Dimension, value: Any, factor: float) -> Any:
    """Return a value of a dimension moved up (a factor above 1) or down, within the space.

    A logarithmic range is moved along by multiplying. A linear one is by `factor - 1` of its length: multiplied by 0.8
    or 1.2, a discount would be at an end of its range at once. Whole numbers move by a step at least, listed values to
    their neighbour.
    """
    direction = int(np.sign(factor - 1))
    match dimension:
        case LogUniform(low=low, high=high):
            return float(np.clip(value * factor, low, high))
        case Uniform(low=low, high=high):
            return float(np.clip(value + (factor - 1) * (high - low), low, high))
        case Integer(low=low, high=high, step=step, log=log):
            steps = round((factor - 1) * (value if log else high - low) / step) or direction
            return int(np.clip(value + steps * step, low, high))
        case Choice(values=values) | Grid(values=values):
            return values[int(np.clip(values.index(value) + direction, 0, len(values) - 1))]
