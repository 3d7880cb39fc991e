"""Ctrl-C: once to stop at the next rollout boundary with a checkpoint, twice to stop at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether a stop was asked for."""

    requested = False


@contextmanager
def stop_on_interrupt(request_stop: Callable[[], None]) -> Iterator[Interruption]:
    """Turn the first SIGINT or SIGTERM of the block into a request, and the second into `KeyboardInterrupt`.

    Args:
        request_stop: Called from the signal handler, so it may only leave a note.
    """
    state = Interruption()

    def handle(number: int, frame: FrameType | None) -> None:
        if state.requested:
            raise KeyboardInterrupt
        state.requested = True
        # Not print: the handler may have come in the middle of one.
        os.write(2, b"\nStopping at the next rollout boundary, with a checkpoint. Ctrl-C again stops at once.\n")
        request_stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield state
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
