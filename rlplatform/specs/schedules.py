"""Values that change while training: a number, or a schedule from an initial to a final value.

A schedule is read from ``{schedule: linear, initial: 1e-3, final: 0}`` or from RL Zoo's shorthand ``lin_1e-3``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rlplatform.specs.base import Spec
from rlplatform.specs.one_of import one_of


class ScheduleSpec(Spec):
    """How a value moves over the budget of a run."""

    schedule: Literal["constant", "linear", "exponential"] = "linear"
    """`linear` adds the same each step, `exponential` multiplies by the same factor, `constant` stays at `initial`."""
    initial: Annotated[float, Field(gt=0)]
    """Value at the first step."""
    final: Annotated[float, Field(ge=0)] = 0.0
    """Value from `end_fraction` of the budget on. Not used by `constant`; must be positive for `exponential`."""
    end_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the budget after which the value stays at `final`."""

    @model_validator(mode="after")
    def _exponential_never_reaches_zero(self) -> ScheduleSpec:
        if self.schedule == "exponential" and self.final == 0:
            raise ValueError("`final` of an exponential schedule must be > 0, got 0. Use for example initial / 100")
        return self


def read_shorthand(value: Any) -> Any:
    """Turn ``lin_0.001`` into a linear schedule from 0.001 to 0."""
    if isinstance(value, str) and value.startswith("lin_"):
        return {"schedule": "linear", "initial": value.removeprefix("lin_")}
    return value


def _within_one(value: float | ScheduleSpec) -> float | ScheduleSpec:
    largest = value if isinstance(value, float) else max(value.initial, value.final)
    if largest > 1:
        raise ValueError(f"must be in (0, 1], got {largest}. Use 0.1 to 0.3")
    return value


_Positive = Annotated[float, Field(gt=0)]
PositiveOrSchedule = Annotated[
    _Positive | ScheduleSpec,
    one_of("a number, {schedule, initial, final}, or `lin_` and a number", number=_Positive, mapping=ScheduleSpec),
    BeforeValidator(read_shorthand),
]
"""A positive number or a schedule."""
UnitOrSchedule = Annotated[PositiveOrSchedule, AfterValidator(_within_one)]
"""A number in (0, 1] or a schedule within it."""
