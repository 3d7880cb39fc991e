"""The promotion gate, as a table."""

from __future__ import annotations

import pytest

from rlplatform.policy.promotion import Evaluation, PromotionRule, decide_promotion

GOOD = Evaluation(200.0, 10.0, 100)
WORSE = Evaluation(150.0, 10.0, 100)
LIKE = Evaluation(201.0, 10.0, 100)
PERFECT = Evaluation(500.0, 0.0, 100)


@pytest.mark.parametrize(
    ("candidate", "champion", "rule", "promoted", "reason"),
    [
        (None, GOOD, PromotionRule(), False, "with no evaluation. Publish it again with one over at least 20."),
        (
            Evaluation(200.0, 1.0, 5),
            None,
            PromotionRule(),
            False,
            "over 5 episodes only. Publish it again with one over at least 20.",
        ),
        (Evaluation(200.0, 0.0, 1), None, PromotionRule(min_episodes=1), False, "at least 2."),
        (GOOD, None, PromotionRule(), True, "is 200, and no version is 'champion' yet."),
        (GOOD, None, PromotionRule(min_return=201.0), False, "is 200, but at least 201 is asked for"),
        (GOOD, WORSE, PromotionRule(), True, "a gain of +50 ± 2.79 (95 %). The lower end of that, 47.2"),
        (WORSE, GOOD, PromotionRule(), False, "a gain of -50 ± 2.79 (95 %). The lower end of that, -52.7"),
        (LIKE, GOOD, PromotionRule(), False, "a gain of +1 ±"),
        (GOOD, WORSE, PromotionRule(min_gain=49.0), False, "must be above 49"),
        (
            PERFECT,
            PERFECT,
            PromotionRule(),
            False,
            "a gain of +0 ± 0 (95 %). The lower end of that, 0, must be above 0",
        ),
        (PERFECT, GOOD, PromotionRule(), True, "298.016, is above 0"),
    ],
)
def test_the_gate_decides_and_says_why(
    candidate: Evaluation | None, champion: Evaluation | None, rule: PromotionRule, promoted: bool, reason: str
) -> None:
    decision = decide_promotion(candidate, champion, rule, has_champion=champion is not None)
    assert decision.promote is promoted
    assert reason in decision.reason


def test_a_champion_without_evaluation_stays() -> None:
    decision = decide_promotion(GOOD, None, PromotionRule(), has_champion=True)
    assert not decision.promote
    assert "'champion' was published without an evaluation" in decision.reason


def test_the_interval_is_welchs() -> None:
    one, other = Evaluation(10.0, 2.0, 10), Evaluation(5.0, 5.0, 15)
    variance = 2.0**2 / 10 + 5.0**2 / 15
    degrees = variance**2 / ((2.0**2 / 10) ** 2 / 9 + (5.0**2 / 15) ** 2 / 14)
    assert int(degrees) == 19
    half = 2.093 * variance**0.5  # Student's t, 97.5 %, 19 degrees, from a printed table.
    rule = PromotionRule(min_episodes=10)
    just_below = PromotionRule(min_episodes=10, min_gain=5.0 - half - 0.01)
    just_above = PromotionRule(min_episodes=10, min_gain=5.0 - half + 0.01)
    assert decide_promotion(one, other, rule, has_champion=True).promote
    assert decide_promotion(one, other, just_below, has_champion=True).promote
    assert not decide_promotion(one, other, just_above, has_champion=True).promote
