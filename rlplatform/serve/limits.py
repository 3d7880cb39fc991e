"""How often somebody may ask: one budget for each key, shared by every replica.

A *ledger* keeps a bucket of requests for each key; it stands in this process, or in one actor for all replicas. A
replica leases a handful of requests at a time, so that the ledger is asked rarely and an answer costs no detour, and
gives back what it did not use. A bucket holds a tenth of a minute's requests and is refilled evenly: nobody gets more
than 110 % of the limit in any minute, and nobody who keeps to it is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

BURST_SHARE = 0.1
LEASE_SHARE = 0.01
"""What part of a minute's requests one lease takes at most."""
LEASE_TTL_S = 1.0
"""How long a lease may be used; what is left of it then is given back, or it would add to a later burst."""
MAX_KEYS = 100_000


@dataclass(frozen=True)
class Grant:
    """The ledger's answer."""

    requests: int
    """How many may be made; 0 when the budget is spent."""
    retry_after_s: float
    """When there is something again, if there is nothing."""


@dataclass
class _Bucket:
    level: float
    at: float


class Ledger:
    """The budgets of all keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def lease(self, key: str, per_minute: float, wanted: int, unused: int) -> Grant:
        """Put what is left of a lease back into a key's budget, and take up to `wanted` requests out of it."""
        now, capacity, rate = self._clock(), max(1.0, per_minute * BURST_SHARE), per_minute / 60
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_KEYS:
                self._forget_full(now)
            bucket = self._buckets[key] = _Bucket(capacity, now)
        bucket.level = min(capacity, bucket.level + unused + (now - bucket.at) * rate)
        bucket.at = now
        granted = min(wanted, int(bucket.level))
        bucket.level -= granted
        return Grant(granted, 0.0 if granted else (1 - bucket.level) / rate)

    def _forget_full(self, now: float) -> None:
        """Forget keys that have not asked for so long that their buckets are full again: nothing is lost with them."""
        full_after = 60 * BURST_SHARE
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket.at < full_after}


Lease = Callable[[str, float, int, int], Awaitable[Grant]]


@dataclass
class _Leased:
    requests: int
    until: float


class RateLimiter:
    """One replica's view of the budgets."""

    def __init__(self, lease: Lease, clock: Callable[[], float] = time.monotonic) -> None:
        """Limit by what a ledger grants.

        Args:
            lease: Asks the ledger.
            clock: Seconds.
        """
        self._lease, self._clock = lease, clock
        self._leased: dict[str, _Leased] = {}
        self._renewals: dict[str, asyncio.Future[float]] = {}

    async def wait_for(self, key: str, per_minute: float) -> float:
        """Count one request; return 0 if it may be made, else the seconds after which to try again."""
        while True:
            leased = self._leased.get(key)
            if leased is not None and leased.requests > 0 and self._clock() < leased.until:
                leased.requests -= 1
                return 0.0
            renewal = self._renewals.get(key)
            if renewal is None:  # One for all who wait: what each leased for itself would be missing elsewhere.
                renewal = self._renewals[key] = asyncio.ensure_future(self._renew(key, per_minute))
            if wait_s := await asyncio.shield(renewal):
                return wait_s

    async def _renew(self, key: str, per_minute: float) -> float:
        leased = self._leased.pop(key, None)
        unused = leased.requests if leased is not None else 0
        try:
            grant = await self._lease(key, per_minute, max(1, int(per_minute * LEASE_SHARE)), unused)
        finally:  # In here, not when it is done: who comes in between would wait for it without a pause, for ever.
            del self._renewals[key]
        if grant.requests == 0:
            return grant.retry_after_s
        if len(self._leased) >= MAX_KEYS:
            self._leased.clear()
        self._leased[key] = _Leased(grant.requests, self._clock() + LEASE_TTL_S)
        return 0.0


def local_lease(ledger: Ledger) -> Lease:
    """Return the lease of a ledger in this process."""

    async def lease(key: str, per_minute: float, wanted: int, unused: int) -> Grant:
        return ledger.lease(key, per_minute, wanted, unused)

    return lease
