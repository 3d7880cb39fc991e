"""What the RunManager remembers."""

from __future__ import annotations

from pathlib import Path

from rlplatform.cluster.run_table import Entry, Journal, Submission


def entry(name: str) -> Entry:
    return Entry(Submission(f"/home/runs/{name}", "owner", [{"CPU": 1.0}], {"env_vars": {"A": "b"}}))


def test_the_journal_brings_back_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "managers" / "one.json")
    first, second = entry("first"), entry("second")
    first.phase, first.attempt, first.retries = "training", 3, 2
    first.want("stop", "it is late")
    journal.write([first, second])
    back = journal.read()
    assert [found.submission for found in back] == [first.submission, second.submission]
    assert [(found.phase, found.attempt, found.retries, found.wanted) for found in back] == [
        ("training", 3, 2, "stop"),
        ("queued", 0, 0, None),
    ]
    assert back[0].actor_name == "rlplatform-run:first:3"


def test_a_journal_of_nothing_is_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "one.json")
    assert journal.read() == []
    journal.write([entry("first")])
    journal.write([])
    assert not journal.path.exists()


def test_stopping_outdoes_pausing() -> None:
    one = entry("first")
    one.want("stop", "by its owner")
    one.want("pause", "by somebody else")
    assert (one.wanted, one.reason) == ("stop", "by its owner")
