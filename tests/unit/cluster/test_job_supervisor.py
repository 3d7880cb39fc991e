"""The supervisor around small commands of the shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlplatform.cluster.job_supervision import Limits
from rlplatform.cluster.job_supervisor import supervise

PATIENCE_S = 30.0


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which the commands write; they find it as $NOTES."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(notes: Path, script: str) -> subprocess.Popen[str]:
    """Start the supervisor in a process of its own, and wait until its command has written a first note."""
    command = [sys.executable, "-m", "rlplatform.cluster.job_supervisor", "--job", "job-7", "--", *shell(script)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3], text=True, stderr=subprocess.DEVNULL)
    until(lambda: notes.exists() and notes.read_text().endswith("\n"))
    return process


LISTENS = """
trap 'echo asked >> $NOTES; exit 130' TERM
echo $RLPLATFORM_JOB_ID > $NOTES
while true; do sleep 0.02; done
"""
COUNTS = """
trap 'echo asked >> $NOTES' TERM
echo $$ > $NOTES
until [ -e $NOTES.end ]; do sleep 0.02; done
exit 130
"""


def test_a_command_that_fails_once_is_started_again(notes: Path) -> None:
    script = 'echo attempt >> $NOTES; [ "$(wc -l < $NOTES)" -eq 2 ]'
    assert supervise(shell(script), Limits(retries=3)) == 0
    assert notes.read_text() == "attempt\nattempt\n"


def test_a_command_that_was_killed_counts_as_a_shell_counts() -> None:
    assert supervise(shell("kill -9 $$"), Limits(retries=0)) == 137


def test_a_command_that_does_not_exist_is_told_by_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("exit 0\n")
    assert supervise(["no-such-command"], Limits(retries=5)) == 127
    assert supervise([str(tmp_path / "script")], Limits(retries=5)) == 126


def test_the_deadline_asks_the_command_which_may_finish_its_work(notes: Path) -> None:
    assert supervise(shell(LISTENS), Limits(deadline_s=2.0)) == 124
    assert notes.read_text().splitlines()[1:] == ["asked"]


def test_a_command_that_does_not_listen_is_killed_with_all_below_it(notes: Path) -> None:
    script = "trap '' TERM; sh -c 'echo $$ > $NOTES; while true; do sleep 0.02; done'; sleep 60"
    assert supervise(shell(script), Limits(deadline_s=2.0, stop_wait_s=0.1)) == 124
    below = int(notes.read_text())
    until(lambda: not Path(f"/proc/{below}").exists() or ") Z" in Path(f"/proc/{below}/stat").read_text())


def test_the_mask_of_signals_is_put_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    supervise(["true"], Limits())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_signal_to_the_supervisor_alone_is_passed_on_once(notes: Path) -> None:
    process = start(notes, LISTENS)
    subprocess.run(["sh", "-c", f"kill {process.pid}; true"], check=True)  # not by one of its ancestors
    assert process.wait(PATIENCE_S) == 130
    assert notes.read_text() == "job-7\nasked\n"


def test_a_signal_to_the_whole_tree_reaches_the_command_once(notes: Path) -> None:
    process = start(notes, COUNTS)
    # As Ray does: from above, to each.
    os.kill(int(notes.read_text()), signal.SIGTERM)
    until(lambda: "asked" in notes.read_text())
    os.kill(process.pid, signal.SIGTERM)
    until(lambda: not is_pending(process.pid, signal.SIGTERM))
    time.sleep(0.1)  # in which it would pass the signal on
    notes.with_suffix(".end").touch()
    assert process.wait(PATIENCE_S) == 130
    assert notes.read_text().count("asked") == 1


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Return whether a signal waits for a process to take it."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_a_command_does_not_outlive_its_supervisor(notes: Path) -> None:
    process = start(notes, LISTENS)
    process.kill()
    process.wait()
    until(lambda: "asked" in notes.read_text())
