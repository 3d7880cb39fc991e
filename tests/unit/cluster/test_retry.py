"""What follows a death."""

from __future__ import annotations

import pytest

from rlplatform.cluster.retry import Death, RetryDecision, decide_retry


@pytest.mark.parametrize(
    ("death", "retries", "expected"),
    [
        (Death("died", "gone"), 0, RetryDecision(True, 1, "Retry 1 of 3: gone")),
        (Death("died", "gone"), 2, RetryDecision(True, 3, "Retry 3 of 3: gone")),
        (Death("preempted", "spot"), 3, RetryDecision(True, 3, "The node was taken away: spot")),
        (Death("setup", "no pip"), 0, RetryDecision(False, 0, "The run's process could not be set up: no pip")),
    ],
)
def test_what_follows_a_death(death: Death, retries: int, expected: RetryDecision) -> None:
    assert decide_retry(death, retries, max_retries=3) == expected


def test_the_last_death_is_told() -> None:
    decision = decide_retry(Death("died", "out of memory"), 3, max_retries=3)
    assert not decision.retry
    assert decision.reason == "The run's process died 4 times; 3 retries are allowed. Last time: out of memory"
