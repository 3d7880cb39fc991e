"""Statistics over seeds against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rlplatform.report.statistics import (
    Estimate,
    aggregate_iqm,
    bootstrap,
    interquartile_mean,
    probability_of_improvement,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 3.0], 2.0),
        ([0.0, 10.0, 20.0, 1000.0], 15.0),
        ([9.0, 1.0, 2.0, 3.0, -90.0], 2.0),
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 99.0, 99.0], 2.5),
    ],
)
def test_interquartile_mean_leaves_out_the_lowest_and_highest_quarter(values: list[float], expected: float) -> None:
    assert interquartile_mean(values).value == expected


def test_one_run_has_no_spread() -> None:
    assert interquartile_mean([7.0]) == Estimate(7.0, 7.0, 7.0)


def test_the_interval_holds_the_value_and_is_the_same_every_time() -> None:
    values = [100.0, 110.0, 120.0, 130.0, 140.0]
    first = interquartile_mean(values)
    assert 100.0 <= first.low < first.value < first.high <= 140.0
    assert interquartile_mean(values) == first


def test_bootstrap_interval_of_the_mean_is_close_to_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(10.0, 2.0, size=400)
    estimate = bootstrap([values.tolist()], lambda samples: samples.mean(axis=1))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.05)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.05)


def test_strata_are_resampled_apart() -> None:
    """Two tasks without spread inside have none together; drawn across tasks they would."""
    estimate = aggregate_iqm([[0.0, 0.0, 0.0, 0.0], [10.0, 10.0, 10.0, 10.0]])
    assert estimate == Estimate(5.0, 5.0, 5.0)


@pytest.mark.parametrize("strata", [[], [[]], [[1.0, float("nan")]]])
def test_missing_values_are_refused(strata: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one value, and finite"):
        aggregate_iqm(strata)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [([2.0, 3.0], [0.0, 1.0], 1.0), ([0.0], [1.0], 0.0), ([1.0, 2.0], [1.0, 2.0], 0.5), ([1.0, 3.0], [2.0], 0.5)],
)
def test_probability_of_improvement_counts_pairs_and_halves_ties(
    new: list[float], old: list[float], expected: float
) -> None:
    estimate = probability_of_improvement(new, old)
    assert estimate.value == expected
    assert estimate.low <= expected <= estimate.high


def test_probability_of_improvement_needs_both_sides() -> None:
    with pytest.raises(ValueError, match="at least one result on each side"):
        probability_of_improvement([], [1.0])


@pytest.mark.parametrize(("values", "expected"), [([0.0, 0.0, 9.0], 3.0), ([0.0, 0.0, 0.0, 90.0], 0.0)])
def test_few_seeds_count_by_their_mean_and_four_by_the_middle_half(values: list[float], expected: float) -> None:
    assert interquartile_mean(values).value == expected
