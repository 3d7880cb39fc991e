"""How runs are watched."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from rlplatform.commands.progress import LiveBars, PlainLines, describe, label, watch_runs
from rlplatform.train.progress import Progress

RUN = Progress("cartpole-s1-20261121-120000-00ff", "running", 512, 1_024, 1_500.4, 20.0, None, 61.0)


def test_a_line_says_how_far_how_fast_and_how_well() -> None:
    expected = "cartpole-s1 running: 512/1,024 steps (50%), 1,500 steps/s, return 20.0, evaluation —, ETA 1:01"
    assert describe(RUN) == expected


def test_a_run_that_is_no_longer_running_has_no_eta() -> None:
    assert describe(replace(RUN, state="stopped")).endswith("ETA —")


def test_names_that_are_no_run_ids_are_shown_whole() -> None:
    assert label("cartpole") == "cartpole"


def test_plain_lines_are_seconds_apart_unless_the_state_changes() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream, every_s=1_000.0)
    for progress in (RUN, RUN, replace(RUN, run_id="other-s1-20261121-120000-00ff"), replace(RUN, state="completed")):
        lines.on_progress(progress)
    written = [line.split(" ", 1)[1].split(":")[0] for line in stream.getvalue().splitlines()]
    assert written == ["cartpole-s1 running", "other-s1 running", "cartpole-s1 completed"]


def test_live_bars_show_a_bar_for_each_run() -> None:
    bars = Bars(console=Console(file=io.StringIO()))
    live = LiveBars(bars)
    live.on_progress(RUN)
    live.on_progress(replace(RUN, step=2_000))
    live.on_progress(replace(RUN, run_id="other-s1-20261121-120000-00ff", total_timesteps=0))
    first, second = bars.tasks
    assert (first.description, first.completed, first.total) == ("cartpole-s1", 1_024, 1_024)
    assert second.total is None


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watch_runs() as watcher:
        watcher.on_progress(RUN)
    assert "cartpole-s1 running" in capsys.readouterr().err


def test_on_a_terminal_the_bars_render_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with watch_runs() as watcher:
        watcher.on_progress(RUN)
    for text in ("cartpole-s1", "512/1,024", "1,500/s", "return 20.0", "ETA 1:01"):
        assert text in stream.getvalue()
