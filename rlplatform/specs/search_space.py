"""What a search may choose: one dimension for each parameter, and conditions between them.

A space maps dotted paths into a run's spec, such as ``algorithm.learning_rate``, to dimensions. Order matters only
to conditions: `when` looks at dimensions that stand above.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from rlplatform.specs.base import Spec
from rlplatform.specs.one_of import tagged
from rlplatform.specs.problems import shown

Point = Mapping[str, Any]
"""What a trial chose: one value for each dimension that is part of it, by dotted path."""


class _Dimension(Spec):
    type: str
    """The kind of dimension."""
    when: dict[str, JsonValue] = {}
    """Part of a trial only if each dimension named here, standing above, has this value, or one of these values."""

    def is_active(self, point: Point) -> bool:
        """Return whether this dimension is part of a trial.

        Args:
            point: What was chosen for the dimensions above.
        """
        return all(path in point and point[path] in wanted(values) for path, values in self.when.items())


class _Range(_Dimension):
    low: float
    """Smallest value."""
    high: float
    """Largest value."""

    @model_validator(mode="after")
    def _low_is_below_high(self) -> _Range:
        if self.low >= self.high:
            raise ValueError(f"`low` must be below `high`, got {self.low:g} and {self.high:g}. Swap or widen them")
        return self

    def extremes(self) -> Sequence[Any]:
        """Return both ends."""
        return self.low, self.high

    def options(self) -> Sequence[Any] | None:
        """Return None: a range of real numbers cannot be counted."""
        return None

    def contains(self, value: Any) -> bool:
        """Return whether a value can be chosen."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


class Uniform(_Range):
    """A number between two bounds, each as likely as any other."""

    type: Literal["uniform"]


class LogUniform(_Range):
    """A positive number between two bounds, each order of magnitude as likely as any other."""

    type: Literal["loguniform"]
    low: Annotated[float, Field(gt=0)]
    """Smallest value."""


class Integer(_Range):
    """A whole number between two bounds, both included."""

    type: Literal["int"]
    low: int
    """Smallest value."""
    high: int
    """Largest value."""
    log: bool = False
    """Each order of magnitude is as likely as any other."""
    step: Annotated[int, Field(ge=1)] = 1
    """Distance between values, counted from `low`."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Integer:
        if self.log and (self.low < 1 or self.step > 1):
            raise ValueError(
                f"`log` needs `low` ≥ 1 and no `step`, got {self.low} and {self.step}. Leave it out, or change them"
            )
        rest = (self.high - self.low) % self.step
        if rest:
            raise ValueError(
                f"`high` must be a number of steps of {self.step} above {self.low}, got {self.high}. "
                f"Use {self.high - rest}"
            )
        return self

    def options(self) -> Sequence[Any] | None:
        """Return every value."""
        return range(self.low, self.high + 1, self.step)

    def contains(self, value: Any) -> bool:
        """Return whether a value can be chosen."""
        return super().contains(value) and value in range(self.low, self.high + 1, self.step)


class _Listed(_Dimension):
    values: Annotated[tuple[JsonValue, ...], Field(min_length=1)]
    """The values, of any kind that the parameter takes."""

    @field_validator("values")
    @classmethod
    def _each_once(cls, values: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
        twice = next((value for position, value in enumerate(values) if _is_in(value, values[:position])), None)
        if twice is not None:
            raise ValueError(f"must hold each value once, got {shown(twice)} again. Remove one")
        return values

    def extremes(self) -> Sequence[Any]:
        """Return every value: there is no order that would make two of them speak for all."""
        return self.values

    def options(self) -> Sequence[Any] | None:
        """Return every value."""
        return self.values

    def contains(self, value: Any) -> bool:
        """Return whether a value can be chosen."""
        return _is_in(value, self.values)


class Choice(_Listed):
    """One of several values, chosen by the sampler."""

    type: Literal["choice"]


class Grid(_Listed):
    """Values that are all tried: with other samplers than `grid`, trials take them in turn."""

    type: Literal["grid"]


Dimension = Annotated[
    Uniform | LogUniform | Integer | Choice | Grid,
    Field(discriminator="type"),
    tagged("type", "kind of dimension", ("uniform", "loguniform", "int", "choice", "grid")),
]
"""What one parameter may be."""
Space = dict[str, Dimension]
"""Dimensions by dotted path into a run's spec."""


def wanted(values: Any) -> Sequence[Any]:
    """Return the values that fulfil one entry of `when`."""
    return values if isinstance(values, list | tuple) else (values,)


def grid_points(space: Mapping[str, Dimension]) -> Iterator[dict[str, Any]]:
    """Yield every point of a space whose dimensions can all be counted, the last dimension moving fastest.

    Args:
        space: Dimensions, each with :meth:`options`; conditions are kept, so that no point comes twice.
    """
    yield from _grid_points(list(space.items()), {})


def _grid_points(dimensions: Sequence[tuple[str, Dimension]], point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not dimensions:
        yield point
        return
    (path, dimension), *rest = dimensions
    if not dimension.is_active(point):
        yield from _grid_points(rest, point)
        return
    for value in dimension.options() or ():
        yield from _grid_points(rest, {**point, path: value})


def _is_in(value: Any, values: Sequence[Any]) -> bool:
    """Return whether a value stands in a list, where `true` is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)
