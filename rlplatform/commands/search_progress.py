"""Watching a search: a live table on a terminal, a line every few seconds anywhere else. Both write to stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.commands.output import MISSING, duration, number
from rlplatform.commands.progress import LINE_EVERY_S, log_through
from rlplatform.specs.search import ObjectiveSpec
from rlplatform.tune.progress import OnSearchProgress, SearchProgress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

TABLE_FRAME = 8
"""Lines of a terminal that the live table's frame, heading and the log above it need."""
REFRESH_PER_S = 2


@contextmanager
def watch_search(objective: ObjectiveSpec, ended: Collection[str] = ()) -> Iterator[OnSearchProgress]:
    """Yield what shows the progress of a search, until the block ends.

    Args:
        objective: What the search compares trials by.
        ended: Ids of the trials that had ended before, of which nothing is told.
    """
    if not sys.stderr.isatty():
        yield PlainSearchLines(sys.stderr, objective, ended)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=True) as live, log_through(sys.stderr):
        yield LiveTrials(live, objective)


class PlainSearchLines:
    """A line when a trial ends, and one about the whole search every few seconds."""

    def __init__(
        self, stream: TextIO, objective: ObjectiveSpec, ended: Collection[str] = (), every_s: float = LINE_EVERY_S
    ) -> None:
        """Write to `stream`, a line about the whole every `every_s` seconds, and none about trials that had ended."""
        self._stream, self._objective, self._every_s = stream, objective, every_s
        self._ended = set(ended)
        self._last: float | None = None

    def __call__(self, progress: SearchProgress) -> None:
        """Write what is due, and first of all what the search is called."""
        if self._last is None:
            self._write(f"search {progress.search_id}")
        for trial in progress.trials:
            if trial.ended_for_good and trial.trial_id not in self._ended:
                self._ended.add(trial.trial_id)
                self._write(describe_trial(trial, self._objective))
        if self._last is None or time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._write(describe_search(progress, self._objective))

    def _write(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), text, file=self._stream, flush=True)


class LiveTrials:
    """A table of the trials that train and of the best ones, with a line about the whole above."""

    def __init__(self, live: Live, objective: ObjectiveSpec) -> None:
        """Draw with `live`, which somebody else starts and stops."""
        self._live, self._objective = live, objective

    def __call__(self, progress: SearchProgress) -> None:
        """Draw the table anew."""
        height = shutil.get_terminal_size().lines - TABLE_FRAME
        self._live.update(self._table(progress, max(3, height)))

    def _table(self, progress: SearchProgress, height: int) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        heading = Text(f"search {progress.search_id}\n{describe_search(progress, self._objective)}")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("parameters", overflow="ellipsis", no_wrap=True, ratio=1)
        table.add_column("steps", justify="right", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        names = short_names(progress.trials)
        for trial in shown_trials(progress, self._objective, height):
            best = progress.best is not None and trial.trial_id == progress.best.trial_id
            cells = (
                trial.trial_id,
                trial.state,
                describe_point(trial.point, names),
                f"{trial.step:,}",
                number(trial.score(self._objective)),
            )
            table.add_row(*map(Text, cells), style="bold green" if best else None)
        return Group(heading, table)


def shown_trials(progress: SearchProgress, objective: ObjectiveSpec, height: int) -> list[TrialRecord]:
    """Return the trials for which there is room: first those that train, then the best of the others.

    Args:
        progress: How far the search is.
        objective: What makes one trial better than another.
        height: How many there is room for.
    """
    sign = 1.0 if objective.mode == "max" else -1.0

    def place(trial: TrialRecord) -> tuple[bool, float]:
        score = trial.score(objective)
        return trial.state != "running", float("inf") if score is None else -sign * score

    return sorted(progress.trials, key=place)[:height]


def describe_search(progress: SearchProgress, objective: ObjectiveSpec) -> str:
    """Return one line about the whole search."""
    running = sum(trial.state == "running" for trial in progress.trials)
    best = MISSING
    if progress.best is not None:
        best = f"{number(progress.best.score(objective))} (trial {progress.best.trial_id})"
    left = f"at most {duration(progress.eta_s)} left" if progress.eta_s is not None else "time left not known yet"
    return (
        f"{progress.ended} of {progress.n_trials} trials ended, {running} training; {progress.trained_steps:,} steps, "
        f"{number(progress.fps, 0)} steps/s; best {best}; {duration(progress.elapsed_s)} so far, {left}"
    )


def describe_trial(trial: TrialRecord, objective: ObjectiveSpec) -> str:
    """Return one line about a trial that ended."""
    because = f" ({trial.reason})" if trial.reason and trial.state != "completed" else ""
    return (
        f"trial {trial.trial_id} {trial.state} at {trial.step:,} steps{because}: "
        f"{number(trial.score(objective))} with {describe_point(trial.point, short_names([trial]))}"
    )


def short_names(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """Return the last part of each parameter's path, or the whole path where two end alike."""
    paths = dict.fromkeys(path for trial in trials for path in trial.point)
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def describe_point(point: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return parameters as `name=value`, numbers with four significant digits."""
    return " ".join(
        f"{names[path]}={value:.4g}" if isinstance(value, float) else f"{names[path]}={value}"
        for path, value in point.items()
    )
