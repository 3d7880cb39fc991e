"""How searches are watched."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.commands.search_progress import (
    PlainSearchLines,
    describe_search,
    describe_trial,
    short_names,
    shown_trials,
    watch_search,
)
from rlplatform.specs.search import ObjectiveSpec
from rlplatform.tune.progress import SearchProgress

OBJECTIVE = ObjectiveSpec()


def trial(number: int, value: float | None = None, **fields: Any) -> TrialRecord:
    """Return a trial's record."""
    point = {"algorithm.learning_rate": 0.000312345, "env.n_envs": 4}
    values: dict[str, Any] = {"trial_id": f"{number:04}", "number": number, "point": point, "seeds": (0,)}
    return TrialRecord(**values | {"value": value, "best_value": value} | fields)


RUNNING = trial(2, 50.0, state="running", step=512, trained_steps=512)
BEST = trial(1, 480.0, state="completed", step=1024, trained_steps=1024)
PROGRESS = SearchProgress(
    "small-1", "running", (trial(0, 20.0, state="stopped", step=256), BEST, RUNNING), BEST, 8, 61, 1500.4, 125
)


def test_one_line_says_how_far_how_well_and_how_long() -> None:
    assert describe_search(PROGRESS, OBJECTIVE) == (
        "2 of 8 trials ended, 1 training; 1,536 steps, 1,500 steps/s; best 480.0 (trial 0001); "
        "1:01 so far, at most 2:05 left"
    )


def test_before_the_first_result_nothing_is_made_up() -> None:
    line = describe_search(SearchProgress("small-1", "running", (), None, 8, 0.0, None, None), OBJECTIVE)
    assert line == ("0 of 8 trials ended, 0 training; 0 steps, — steps/s; best —; 0:00 so far, time left not known yet")


def test_a_trial_that_was_stopped_says_why() -> None:
    line = describe_trial(trial(0, 20.0, state="stopped", step=256, reason="below the best third"), OBJECTIVE)
    assert line == (
        "trial 0000 stopped at 256 steps (below the best third): 20.0 with learning_rate=0.0003123 n_envs=4"
    )


def test_names_are_short_unless_two_are_alike() -> None:
    both = trial(0, point={"a.x": 1, "b.x": 2, "b.y": 3})
    assert short_names([both]) == {"a.x": "a.x", "b.x": "b.x", "b.y": "y"}


@pytest.mark.parametrize(("mode", "expected"), [("max", ["0002", "0001"]), ("min", ["0002", "0000"])])
def test_where_room_is_short_the_training_and_the_best_trials_are_shown(mode: Any, expected: list[str]) -> None:
    shown = shown_trials(PROGRESS, ObjectiveSpec(mode=mode), 2)
    assert [one.trial_id for one in shown] == expected


def test_plain_lines_tell_each_end_once_and_the_whole_now_and_then() -> None:
    stream = io.StringIO()
    lines = PlainSearchLines(stream, OBJECTIVE, ["0000"], every_s=1_000.0)
    for _ in range(3):
        lines(PROGRESS)
    lines(replace(PROGRESS, trials=(*PROGRESS.trials[:2], trial(2, 55.0, state="completed"))))
    written = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert [" ".join(line.split()[:3]) for line in written] == [
        "search small-1",
        "trial 0001 completed",
        "2 of 8",
        "trial 0002 completed",
    ]


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watch_search(OBJECTIVE) as on_progress:
        on_progress(PROGRESS)
    assert "2 of 8 trials ended" in capsys.readouterr().err


def test_on_a_terminal_there_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with watch_search(OBJECTIVE) as on_progress:
        on_progress(PROGRESS)
    for text in (
        "search small-1",
        "2 of 8 trials ended",
        "0001",
        "completed",
        "learning_rate=0.0003123 n_envs=4",
        "480.0",
    ):
        assert text in stream.getvalue()
