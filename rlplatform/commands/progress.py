"""Watching runs: a live bar for each on a terminal, a line every few seconds anywhere else. Both write to stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rlplatform.commands.output import MISSING, duration, number
from rlplatform.logs import ROOT_LOGGER
from rlplatform.train.progress import Listener, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_EVERY_S = 5.0


@contextmanager
def watch_runs() -> Iterator[Listener]:
    """Yield the listener that shows every run it hears of, until the block ends."""
    if not sys.stderr.isatty():
        yield PlainLines(sys.stderr)
        return
    with _bars() as bars, log_through(sys.stderr):
        yield LiveBars(bars)


class PlainLines:
    """A line every few seconds, about each run in turn, and one at each change of state."""

    def __init__(self, stream: TextIO, every_s: float = LINE_EVERY_S) -> None:
        """Write to `stream`, about a line every `every_s` seconds, however many runs there are."""
        self._stream, self._every_s = stream, every_s
        self._last: dict[str, tuple[str, float]] = {}

    def on_progress(self, progress: Progress) -> None:
        """Write a line, if one is due."""
        now = time.monotonic()
        state, at = self._last.get(progress.run_id, ("", 0.0))
        if state == progress.state and now - at < self._every_s * len(self._last):
            return
        self._last[progress.run_id] = (progress.state, now)
        print(time.strftime("%H:%M:%S"), describe(progress), file=self._stream, flush=True)


class LiveBars:
    """One bar for each run."""

    def __init__(self, bars: Bars) -> None:
        """Draw with `bars`, which somebody else starts and stops."""
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def on_progress(self, progress: Progress) -> None:
        """Move the run's bar."""
        if progress.run_id not in self._tasks:
            self._tasks[progress.run_id] = self._bars.add_task(
                label(progress.run_id), total=None, shown=_fields(progress)
            )
        self._bars.update(
            self._tasks[progress.run_id],
            completed=min(progress.step, progress.total_timesteps),
            total=progress.total_timesteps or None,
            shown=_fields(progress),
        )


def label(run_id: str) -> str:
    """Return a run's id without date, time and random part."""
    parts = run_id.rsplit("-", 3)
    return parts[0] if len(parts) == 4 else run_id


def describe(progress: Progress) -> str:
    """Return one line about a run."""
    share = f" ({progress.step / progress.total_timesteps:.0%})" if progress.total_timesteps else ""
    fields = _fields(progress)
    return (
        f"{label(progress.run_id)} {progress.state}: {fields['steps']} steps{share}, {fields['fps']} steps/s, "
        f"return {fields['rollout']}, evaluation {fields['evaluation']}, ETA {fields['eta']}"
    )


def _fields(progress: Progress) -> dict[str, str]:
    return {
        "state": progress.state,
        "steps": f"{progress.step:,}/{progress.total_timesteps:,}",
        "fps": number(progress.fps, 0),
        "rollout": number(progress.rollout_return),
        "evaluation": number(progress.eval_return),
        "eta": duration(progress.eta_s) if progress.state == "running" else MISSING,
    }


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}"),
        TextColumn("{task.fields[shown][state]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[shown][steps]}"),
        TextColumn("{task.fields[shown][fps]}/s"),
        TextColumn("return {task.fields[shown][rollout]} eval {task.fields[shown][evaluation]}"),
        TextColumn("ETA {task.fields[shown][eta]}"),
        console=Console(stderr=True),
        expand=True,
        refresh_per_second=4,
    )


@contextmanager
def log_through(stream: TextIO) -> Iterator[None]:
    """Send the log's terminal lines above the bars: rich redirects `sys.stderr`, but the handler kept the real one."""
    handlers = [
        handler
        for handler in logging.getLogger(ROOT_LOGGER).handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
    previous = [handler.setStream(stream) for handler in handlers]
    try:
        yield
    finally:
        for handler, old in zip(handlers, previous, strict=True):
            if old is not None:
                handler.setStream(old)
