"""What proposes trials: random points, every point of a grid, or what Optuna learns from the trials before.

Each sampler is picklable with everything it remembers, so that a search that is taken up gets the suggestions that an
uninterrupted one would. The space is walked from top to bottom: a dimension whose condition is not met is not asked
for, neither at random nor by Optuna (define-by-run).
"""

from __future__ import annotations

from itertools import islice
from typing import Protocol

import numpy as np

from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_space import grid_points
from rlplatform.tune.points import Point, draw, walk


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
