"""Which queued runs start."""

from __future__ import annotations

from rlplatform.cluster.scheduling import MAX_WAITING, Active, Waiting, plan_starts


def queue(n_runs: int, owner: str = "a", limit: int | None = None) -> list[Waiting]:
    return [Waiting(f"{owner}{i}", owner, limit) for i in range(n_runs)]


def started(waiting: list[Waiting], active: list[Active]) -> list[str]:
    return [decision.run_id for decision in plan_starts(waiting, active) if decision.start]


def test_without_a_limit_everything_asks_for_resources() -> None:
    assert started(queue(3), []) == ["a0", "a1", "a2"]


def test_a_submissions_limit_holds_back_only_its_own_runs() -> None:
    waiting = [*queue(2, "a", limit=1), *queue(2, "b")]
    decisions = plan_starts(waiting, [Active("a9", "a", True)])
    assert [decision.start for decision in decisions] == [False, False, True, True]
    assert decisions[0].reason == "1 runs of this submission are active, its limit is 1"


def test_a_long_queue_does_not_ask_for_everything_at_once() -> None:
    waiting = [Active(f"w{i}", "b", False) for i in range(MAX_WAITING - 1)]
    assert started(queue(3), waiting) == ["a0"]


def test_runs_that_have_their_resources_hold_nobody_back() -> None:
    assert started(queue(1), [Active(f"t{i}", "b", True) for i in range(100)]) == ["a0"]
