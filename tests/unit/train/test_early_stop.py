"""The early stopping rule, case by case."""

from __future__ import annotations

import pytest

from rlplatform.specs.run import EarlyStopSpec
from rlplatform.train.early_stop import EarlyStopDecision, EvaluationHistory, after_evaluation


def _feed(rule: EarlyStopSpec, returns: list[float]) -> list[EarlyStopDecision]:
    history, decisions = EvaluationHistory(), []
    for value in returns:
        decisions.append(after_evaluation(rule, history, value))
        history = decisions[-1].history
    return decisions


def test_without_a_rule_it_never_stops_and_keeps_the_best() -> None:
    decisions = _feed(EarlyStopSpec(), [1.0, 3.0, 2.0, 3.0, 4.0])
    assert [decision.is_best for decision in decisions] == [True, True, False, False, True]
    assert not any(decision.stop for decision in decisions)


@pytest.mark.parametrize(("value", "stops"), [(474.9, False), (475.0, True), (500.0, True)])
def test_the_target_return_stops_and_says_so(value: float, stops: bool) -> None:
    (decision,) = _feed(EarlyStopSpec(target_return=475.0), [value])
    assert decision.stop is stops
    assert ("reached the target 475" in decision.reason) is stops


def test_patience_counts_evaluations_without_improvement() -> None:
    decisions = _feed(EarlyStopSpec(patience=2), [10.0, 9.0, 11.0, 11.0, 10.0])
    assert [decision.stop for decision in decisions] == [False, False, False, False, True]
    assert "in 2 evaluations" in decisions[-1].reason


def test_a_gain_below_the_minimum_is_no_improvement_but_still_the_best() -> None:
    decisions = _feed(EarlyStopSpec(patience=2, min_improvement=5.0), [10.0, 12.0, 14.0])
    assert decisions[-1].is_best
    assert decisions[-1].stop
    assert decisions[-1].history.reference_return == 10.0


def test_small_gains_add_up_to_an_improvement() -> None:
    decisions = _feed(EarlyStopSpec(patience=3, min_improvement=5.0), [10.0, 13.0, 16.0])
    assert decisions[-1].history.since_improvement == 0
