"""Schedules against their closed forms."""

from __future__ import annotations

import pickle

import pytest

from rlplatform.algos.values import schedule
from rlplatform.specs.schedules import ScheduleSpec


def test_a_number_stays_a_number() -> None:
    assert schedule(0.1) == 0.1
    assert schedule(ScheduleSpec(schedule="constant", initial=0.1)) == 0.1


@pytest.mark.parametrize(
    ("progress_remaining", "linear", "exponential"),
    [(1.0, 1.0, 1.0), (0.75, 0.505, 0.1), (0.5, 0.01, 0.01), (0.0, 0.01, 0.01), (-0.1, 0.01, 0.01)],
)
def test_schedules_follow_their_formula(progress_remaining: float, linear: float, exponential: float) -> None:
    for shape, expected in (("linear", linear), ("exponential", exponential)):
        spec = ScheduleSpec.model_validate({"schedule": shape, "initial": 1.0, "final": 0.01, "end_fraction": 0.5})
        built = schedule(spec)
        assert callable(built)
        assert built(progress_remaining) == pytest.approx(expected)
        assert pickle.loads(pickle.dumps(built))(progress_remaining) == built(progress_remaining)
