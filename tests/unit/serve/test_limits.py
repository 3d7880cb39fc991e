"""A key's budget holds within ten percent, over any number of replicas."""

from __future__ import annotations

import asyncio

import pytest

from rlplatform.serve.limits import Grant, Ledger, RateLimiter, local_lease


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def flood(limiters: list[RateLimiter], clock: Clock, per_minute: float, seconds: float, every_s: float) -> int:
    served = 0
    for index in range(int(seconds / every_s)):
        clock.now += every_s
        served += await limiters[index % len(limiters)].wait_for("key", per_minute) == 0
    return served


@pytest.mark.parametrize("per_minute", [10, 100, 1000, 6000])
@pytest.mark.parametrize("n_replicas", [1, 2, 5])
def test_a_flood_over_several_replicas_gets_the_limit_within_ten_percent(per_minute: int, n_replicas: int) -> None:
    clock = Clock()
    lease = local_lease(Ledger(clock))
    limiters = [RateLimiter(lease, clock) for _ in range(n_replicas)]
    served = asyncio.run(flood(limiters, clock, per_minute, 60, 60 / per_minute / 5))
    assert 0.9 * per_minute <= served <= 1.1 * per_minute + 1


@pytest.mark.parametrize("per_minute", [100, 1200, 6000])
@pytest.mark.parametrize("n_replicas", [2, 5])
def test_who_keeps_to_the_limit_is_never_refused_whatever_is_leased_and_not_used(
    per_minute: int, n_replicas: int
) -> None:
    clock = Clock()
    lease = local_lease(Ledger(clock))
    limiters = [RateLimiter(lease, clock) for _ in range(n_replicas)]
    seconds, every_s = 300, 60 / per_minute
    assert asyncio.run(flood(limiters, clock, per_minute, seconds, every_s)) == int(seconds / every_s)


def test_who_is_refused_is_told_when_to_come_back_and_is_served_then() -> None:
    clock = Clock()
    limiter = RateLimiter(local_lease(Ledger(clock)), clock)

    async def ask() -> float:
        return await limiter.wait_for("key", 60)

    while (wait_s := asyncio.run(ask())) == 0:
        pass
    assert 0 < wait_s <= 1
    clock.now += wait_s + 1e-6
    assert asyncio.run(ask()) == 0


def test_keys_have_budgets_of_their_own() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    while ledger.lease("greedy", 60, 1, 0).requests:
        pass
    assert ledger.lease("modest", 60, 1, 0).requests == 1


def test_those_who_wait_together_lease_together() -> None:
    ledger, leases = Ledger(), []

    async def lease(key: str, per_minute: float, wanted: int, unused: int) -> Grant:
        leases.append(wanted)
        await asyncio.sleep(0)
        return ledger.lease(key, per_minute, wanted, unused)

    async def ask() -> list[float]:
        limiter = RateLimiter(lease)
        return await asyncio.gather(*(limiter.wait_for("key", 1200) for _ in range(12)))

    assert asyncio.run(ask()) == [0.0] * 12
    assert leases == [12]


def test_a_ledger_that_grants_nothing_refuses() -> None:
    async def nothing(_key: str, _per_minute: float, _wanted: int, _unused: int) -> Grant:
        return Grant(0, 2.5)

    assert asyncio.run(RateLimiter(nothing).wait_for("key", 10)) == 2.5


def test_who_asks_while_a_lease_comes_in_is_served_too() -> None:
    """They find the lease used up, and must not wait without a pause for an answer that is there."""
    late: list[asyncio.Task[float]] = []

    async def waits() -> list[float]:
        async def lease(key: str, per_minute: float, wanted: int, unused: int) -> Grant:
            if not late:
                late.extend(asyncio.create_task(limiter.wait_for("a", 60)) for _ in range(3))
            return Grant(1, 0.0)

        limiter = RateLimiter(lease)
        return [await limiter.wait_for("a", 60), *await asyncio.gather(*late)]

    assert asyncio.run(waits()) == [0.0] * 4
