"""Retries and deadlines of a job, as decisions."""

from __future__ import annotations

import signal

import pytest

from rlplatform.cluster.job_supervision import LONGEST_PAUSE_S, Asked, Limits, Look, decide, look

LIMITS = Limits(retries=2, deadline_s=100.0, stop_wait_s=30.0)


@pytest.mark.parametrize(
    ("elapsed_s", "asked_at_s", "expected"),
    [
        (0.0, None, Look(None, 100.0)),
        (99.0, None, Look(None, 1.0)),
        (100.0, None, Look(signal.SIGTERM, 30.0)),
        (500.0, None, Look(signal.SIGTERM, 30.0)),
        (100.0, 100.0, Look(None, 30.0)),
        (20.0, 10.0, Look(None, 20.0)),
        (130.0, 100.0, Look(signal.SIGKILL, None)),
    ],
)
def test_a_command_is_asked_at_the_deadline_and_killed_when_it_does_not_stop(
    elapsed_s: float, asked_at_s: float | None, expected: Look
) -> None:
    assert look(elapsed_s, asked_at_s, LIMITS) == expected


def test_without_a_deadline_nothing_is_due_until_it_is_asked_to_stop() -> None:
    forever = Limits(deadline_s=None, stop_wait_s=30.0)
    assert look(1e9, None, forever) == Look(None, None)
    assert look(1e9, 1e9 - 10, forever) == Look(None, 20.0)


@pytest.mark.parametrize("exit_code", [1, 3, 137, 139, 143])
def test_what_failed_is_tried_again_as_often_as_allowed(exit_code: int) -> None:
    first, second, third = (decide(exit_code, attempt, 10.0, None, LIMITS) for attempt in (1, 2, 3))
    assert (first.retry_in_s, second.retry_in_s, third.retry_in_s) == (1.0, 2.0, None)
    assert third.exit_code == exit_code
    assert f"exit code {exit_code}; retry 1 of 2 in 1 s" in first.reason
    assert "none of 2 retries is left" in third.reason


def test_pauses_double_up_to_a_limit() -> None:
    patient = Limits(retries=100)
    pauses = [decide(1, attempt, 0.0, None, patient).retry_in_s for attempt in range(1, 9)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


@pytest.mark.parametrize(
    ("exit_code", "because"),
    [(2, "is wrong"), (126, "not executable"), (127, "no such command"), (130, "stopped or paused by somebody")],
)
def test_what_would_end_so_again_is_not_tried_again(exit_code: int, because: str) -> None:
    verdict = decide(exit_code, 1, 10.0, None, LIMITS)
    assert (verdict.retry_in_s, verdict.exit_code) == (None, exit_code)
    assert because in verdict.reason


@pytest.mark.parametrize(
    ("asked", "ended_with", "exit_code"),
    [("stop", 130, 130), ("stop", 1, 1), ("deadline", 130, 124), ("deadline", 1, 124), ("deadline", 137, 124)],
)
def test_what_was_asked_to_stop_is_over(asked: Asked, ended_with: int, exit_code: int) -> None:
    verdict = decide(ended_with, 1, 100.0, asked, LIMITS)
    assert (verdict.retry_in_s, verdict.exit_code) == (None, exit_code)
    assert "stopped" in verdict.reason


@pytest.mark.parametrize("asked", [None, "stop", "deadline"])
def test_what_is_done_is_done(asked: Asked | None) -> None:
    assert decide(0, 3, 1e9, asked, LIMITS).exit_code == 0


def test_nothing_is_tried_again_when_the_deadline_would_stop_it_at_once() -> None:
    verdict = decide(1, 1, 99.5, None, LIMITS)
    assert (verdict.retry_in_s, verdict.exit_code) == (None, 1)
    assert "leaves no time" in verdict.reason
