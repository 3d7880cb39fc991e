"""What the endpoints share: made once for each replica, given to each router."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from rlplatform.policy.registry import ModelRegistry
from rlplatform.serve.models import ModelCache


@dataclass(frozen=True)
class InferenceLimits:
    """What one replica takes."""

    max_body_bytes: int = 16 * 2**20
    """Of one message of a stream; the gate sees to those of requests."""
    max_batch: int = 4096
    """Observations in one request, and episodes of one stream."""
    max_streams: int = 64
    """Open streams. Under Serve it must stay below `max_ongoing_requests`, which counts them too."""
    stream_idle_s: float = 300.0
    """A stream on which nothing is said for so long is closed."""


@dataclass
class OpenStreams:
    """How many streams this replica holds open."""

    count: int = 0


def _workers() -> Executor:
    return ThreadPoolExecutor(2, thread_name_prefix="inference")


@dataclass(frozen=True)
class Services:
    """Everything that endpoints work with."""

    registry: ModelRegistry
    models: ModelCache
    limits: InferenceLimits = InferenceLimits()
    streams: OpenStreams = field(default_factory=OpenStreams)
    workers: Executor = field(default_factory=_workers)
    """Evaluates what would hold the event loop up: large batches, large networks."""
