"""What the service counts, for Prometheus: requests by route and status, and how long they took.

prometheus_client's own counters take a lock and a dozen calls for each request; here counting is one look-up and four
additions on the event loop, and prometheus_client writes the text when it is asked for. A scrape reaches one replica,
whichever it is: so every replica leaves its counts with a *tally* now and then, and each answers with the sum.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHARE_EVERY_S = 5.0
"""How old another replica's counts may be."""
_LABELS = ("method", "route", "status")
_Key = tuple[str, str, int]


@dataclass
class Series:
    """Requests of one method, route and status."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
    seconds: float = 0.0


@dataclass(frozen=True)
class Counts:
    """What one replica has counted since it began."""

    requests: Mapping[_Key, Series]
    streams: int
    """WebSockets and event streams that are open now."""


class Telemetry:
    """The counters of one replica. To be used from one event loop."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._series: dict[_Key, Series] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            method: HTTP method.
            route: The route's template, never the path itself: paths are without number.
            status: HTTP status.
            seconds: How long it took.
        """
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series()
        series.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        series.seconds += seconds

    def counts(self, streams: int = 0) -> Counts:
        """Return what was counted so far; may be called from any thread."""
        return Counts(
            {key: Series(list(one.buckets), one.seconds) for key, one in tuple(self._series.items())}, streams
        )


class Tally:
    """The counts of all replicas; those of one that has ended stay, so that no sum ever falls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shared: dict[str, tuple[Counts, float]] = {}

    def share(self, replica: str, counts: Counts) -> list[Counts]:
        """Take a replica's counts, and return everybody's."""
        now = self._clock()
        self._shared[replica] = counts, now
        return [
            counts if now - at < 3 * SHARE_EVERY_S else Counts(counts.requests, 0)  # It has ended.
            for counts, at in self._shared.values()
        ]


Share = Callable[[Counts], Awaitable[list[Counts]]]
"""Leaves this replica's counts with the tally, and returns everybody's."""


async def alone(counts: Counts) -> list[Counts]:
    """Return a replica's own counts: it is the only one."""
    return [counts]


def exposition(shared: Iterable[Counts]) -> bytes:
    """Return the sum of counts as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Sum(list(shared)))  # Anything with `collect` will do.
    return generate_latest(registry)


class _Sum:
    def __init__(self, shared: list[Counts]) -> None:
        self._shared = shared

    def collect(self) -> Iterator[Metric]:
        """Return the sum in prometheus_client's words."""
        requests = CounterMetricFamily("rlplatform_http_requests", "Requests answered.", labels=_LABELS)
        seconds = HistogramMetricFamily(
            "rlplatform_http_request_seconds", "Time from a request's arrival to its answer's end.", labels=_LABELS
        )
        total: dict[_Key, Series] = {}
        for counts in self._shared:
            for key, series in counts.requests.items():
                known = total.get(key, Series())
                buckets = [a + b for a, b in zip(known.buckets, series.buckets, strict=True)]
                total[key] = Series(buckets, known.seconds + series.seconds)
        bounds = [*(str(bound) for bound in LATENCY_BUCKETS_S), "+Inf"]
        for (method, route, status), series in total.items():
            labels = (method, route, str(status))
            requests.add_metric(labels, sum(series.buckets))
            seconds.add_metric(
                labels, list(zip(bounds, accumulate(series.buckets), strict=True)), sum_value=series.seconds
            )
        yield requests
        yield seconds
        open_streams = sum(counts.streams for counts in self._shared)
        yield GaugeMetricFamily("rlplatform_open_streams", "WebSockets and event streams.", open_streams)
