"""What proposes trials: random points, every point of a grid, or what Optuna learns from the trials before.

Each sampler is picklable with everything it remembers, so that a search that is taken up gets the suggestions that an
uninterrupted one would. The space is walked from top to bottom: a dimension whose condition is not met is not asked
for, neither at random nor by Optuna (define-by-run).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Protocol

import numpy as np

from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_space import Choice, Dimension, Grid, Integer, LogUniform, Uniform, grid_points

Point = dict[str, Any]


class Sampler(Protocol):
    """What proposes trials."""

    def suggest(self, number: int) -> Point | None:
        """Return the point of a trial; None when there is none left. Numbers come in order, from 0."""
        ...

    def tell(self, number: int, value: float | None) -> None:
        """Take the value of a trial that has ended. None: it failed."""
        ...


def make_sampler(spec: SearchSpec) -> Sampler:
    """Return the sampler that a search asks for, at its beginning."""
    if spec.sampler.name == "grid":
        return GridSampler(spec)
    if spec.sampler.name == "random":
        return RandomSampler(spec)
    from rlplatform.tune.optuna_sampler import OptunaSampler  # half a second, for who needs it

    return OptunaSampler(spec)


class RandomSampler:
    """Points at random; each depends on the search's seed and its own number only."""

    def __init__(self, spec: SearchSpec) -> None:
        """Take the space and the seed."""
        self._space, self._seed = spec.space, spec.seed

    def suggest(self, number: int) -> Point | None:
        """Return a point at random."""
        rng = np.random.default_rng((self._seed, number))
        return walk(self._space, number, lambda _, dimension: draw(dimension, rng))

    def tell(self, number: int, value: float | None) -> None:
        """Learn nothing."""


class GridSampler:
    """Every point once, the last dimension moving fastest."""

    def __init__(self, spec: SearchSpec) -> None:
        """Take the space."""
        self._space = spec.space

    def suggest(self, number: int) -> Point | None:
        """Return the point of that number."""
        return next(islice(grid_points(self._space), number, None), None)

    def tell(self, number: int, value: float | None) -> None:
        """Learn nothing."""


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
