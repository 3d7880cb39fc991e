"""Printing for pipes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlplatform.commands import output


@dataclass(frozen=True)
class Point:
    x: float


def test_a_piped_table_has_one_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name", ">n"), [("a" * 200, "1"), ("b", "22")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name" + " " * 198 + " n", "a" * 200 + "   1", "b" + " " * 201 + "22"]


@pytest.mark.parametrize("columns", [20, 60, 200])
def test_a_table_on_a_narrow_terminal_breaks_no_word(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    run = "cartpole-v1-ppo-s0-20261121-060449-4060"
    output.print_table(("run", "state", ">wall time"), [(run, "running, but its process is gone", "0:02:11")])
    words = capsys.readouterr().out.split()
    assert {run, "running,", "process", "0:02:11"} <= set(words)


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"a": "1", "long": "2"})
    assert capsys.readouterr().out == "a     1\nlong  2\n"


def test_json_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"points": [Point(1.5)], "at": datetime(2026, 1, 2, tzinfo=UTC)})
    output.say("for people")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"points": [{"x": 1.5}], "at": "2026-01-02T00:00:00+00:00"}
    assert captured.err == "for people\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "—"), (0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3_600 * 2 + 65, "2:01:05")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(("n_bytes", "text"), [(12, "12 B"), (1_500, "1.5 kB"), (2e9, "2.0 GB"), (5e15, "5000.0 TB")])
def test_sizes(n_bytes: float, text: str) -> None:
    assert output.size(n_bytes) == text


def test_an_interval_needs_all_its_numbers() -> None:
    assert output.interval(1.0, 0.5, 1.5) == "1.0 [0.5, 1.5]"
    assert output.interval(None, None, None) == "—"


def test_next_commands_are_spelled_as_they_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "rlplatform").write_text("")
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    output.next_commands(("rlplatform runs list", "see them"), ("tensorboard --logdir x", "look"))
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "  .venv/bin/rlplatform runs list  see them",
        "  tensorboard --logdir x          look",
    ]
