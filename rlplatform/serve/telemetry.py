"""What the service counts, for Prometheus: requests by route and status, and how long they took.

prometheus_client's own counters take a lock and a dozen calls for each request; here counting is one look-up and four
additions on the event loop, and prometheus_client writes the text when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Series:
    """Requests of one method, route and status."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.seconds = 0.0


class Telemetry:
    """The counters of one replica. To be used from one event loop."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        self.registry.register(self)  # Anything with `collect` will do.
        self.streams = Gauge("rlplatform_open_streams", "WebSockets and event streams.", registry=self.registry)
        self._series: dict[tuple[str, str, int], _Series] = {}

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
            series = self._series[key] = _Series()
        series.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        series.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Return what was counted, in prometheus_client's words."""
        requests = CounterMetricFamily(
            "rlplatform_http_requests", "Requests answered.", labels=("method", "route", "status")
        )
        seconds = HistogramMetricFamily(
            "rlplatform_http_request_seconds",
            "Time from a request's arrival to its answer's end.",
            labels=("method", "route", "status"),
        )
        bounds = [*(str(bound) for bound in LATENCY_BUCKETS_S), "+Inf"]
        for (method, route, status), series in tuple(self._series.items()):
            labels = (method, route, str(status))
            requests.add_metric(labels, sum(series.buckets))
            seconds.add_metric(
                labels, list(zip(bounds, accumulate(series.buckets), strict=True)), sum_value=series.seconds
            )
        yield requests
        yield seconds

    def text(self) -> bytes:
        """Return everything counted, as Prometheus reads it."""
        return generate_latest(self.registry)
