"""The process that a job of `rlplatform jobs submit` runs: it starts the job's command, again where that helps.

    Ray's JobSupervisor actor ─▶ this process ─▶ the command, such as `python jobs/train.py …`

Ray starts a job once, and lets it run as long as it likes. Here are retries and a deadline, decided by the pure
functions of `job_supervision`. Each attempt is told the job's id by RLPLATFORM_JOB_ID, and so finds what the attempts
before it have made. This process needs no Ray, so that a lost connection to it ends an attempt only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlplatform import names
from rlplatform.cluster.job import JOB_STOP_WAIT_S, JOB_VARIABLES, prepare_job
from rlplatform.cluster.job_supervision import STOPPED_CODE, Asked, Limits, decide, look
from rlplatform.logs import configure, get_logger

STOPS = frozenset({signal.SIGINT, signal.SIGTERM})
_WATCHED = STOPS | {signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
_LOOK_S = 1.0
"""Longest wait for a signal: in a process with other threads, one of them may take the SIGCHLD of the command."""

_log = get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job's command as its options say, and return the job's exit code."""
    parser = argparse.ArgumentParser(prog="python -m rlplatform.cluster.job_supervisor", description=__doc__)
    parser.add_argument("--job", required=True, help="the job's id")
    parser.add_argument("--retries", type=int, default=0, help="how often a command that fails is started again")
    parser.add_argument("--deadline-s", type=float, help="seconds after which the job is stopped")
    parser.add_argument("--stop-wait-s", type=float, default=JOB_STOP_WAIT_S, help="seconds that stopping may take")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args(argv)
    configure(None)
    prepare_job()
    os.environ[names.JOB_ENV_VAR] = options.job
    if address := os.environ.get("RAY_ADDRESS"):
        _have_a_manager(address)
    return supervise(options.command, Limits(options.retries, options.deadline_s, options.stop_wait_s))


def _have_a_manager(address: str) -> None:
    """Start a process that makes the cluster's RunManager, which submits this job again should its node be lost."""
    command = [sys.executable, "-m", "rlplatform.cluster.manager_process", "--address", address]
    environment = {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}
    # Started elsewhere than in the job's folder, which Python and Ray would put on the import path.
    subprocess.Popen([*command, "--home", os.environ[names.HOME_ENV_VAR]], cwd="/", env=environment)


def supervise(command: Sequence[str], limits: Limits) -> int:
    """Run a command until it succeeds, is stopped, or may not be tried again; return the exit code that says which.

    Args:
        command: Program and arguments.
        limits: How often and how long.
    """
    began = time.monotonic()
    with _signals_wait() as before:
        for attempt in itertools.count(1):
            _log.info("attempt %d of %d: %s", attempt, limits.retries + 1, shlex.join(command))
            exit_code, asked = _Attempt(command, limits, began, before).run()
            verdict = decide(exit_code, attempt, time.monotonic() - began, asked, limits)
            _log.info("%s", verdict.reason)
            if verdict.retry_in_s is None:
                return verdict.exit_code
            if signal.sigtimedwait(STOPS, verdict.retry_in_s) is not None:
                _log.info("stopped before the next attempt")
                return STOPPED_CODE
    raise AssertionError("unreachable")


class _Attempt:
    """One process of the command, from its start to its end."""

    def __init__(self, command: Sequence[str], limits: Limits, began: float, signals_before: set[int]) -> None:
        self._command, self._limits, self._began = command, limits, began
        self._signals_before = signals_before
        self._asked: Asked | None = None
        self._asked_at_s: float | None = None

    def run(self) -> tuple[int, Asked | None]:
        """Return the command's exit code, as a shell counts, and why it was asked to stop."""
        libc = ctypes.CDLL(None)

        def prepare_child() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._signals_before)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # so that it does not outlive this process

        try:
            process = subprocess.Popen(self._command, preexec_fn=prepare_child)
        except OSError as error:
            exit_code = 126 if isinstance(error, PermissionError) else 127
            _log.error("%s cannot be started: %s", self._command[0], error.strerror)
            return exit_code, None
        while process.poll() is None:
            self._watch(process.pid)
        while signal.sigtimedwait(STOPS, 0) is not None:  # it may have come with the command's end, which it caused
            self._ask("stop")
        code = process.returncode
        return (code if code >= 0 else 128 - code), self._asked

    def _watch(self, pid: int) -> None:
        """Do what is due, and wait until something happens or is due."""
        next_look = look(time.monotonic() - self._began, self._asked_at_s, self._limits)
        if next_look.send is signal.SIGTERM:
            self._ask("deadline")
            _log.info("the deadline is reached: the command gets %g s to stop", self._limits.stop_wait_s)
        elif next_look.send is signal.SIGKILL:
            _log.warning("the command did not stop within %g s and is killed", self._limits.stop_wait_s)
        if next_look.send is not None:
            _signal_all(pid, next_look.send)
        wait_s = _LOOK_S if next_look.again_in_s is None else min(_LOOK_S, next_look.again_in_s)
        got = signal.sigtimedwait(_WATCHED, wait_s)
        if got is not None and got.si_signo in STOPS:
            self._ask("stop")
            if got.si_pid not in _ancestors():
                _signal_all(pid, signal.Signals(got.si_signo))

    def _ask(self, why: Asked) -> None:
        if self._asked is None:
            self._asked, self._asked_at_s = why, time.monotonic() - self._began


@contextlib.contextmanager
def _signals_wait() -> Iterator[set[int]]:
    """Let signals wait during the block until they are asked for, which tells who sent them; yield the mask before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        yield set(before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and to all below it, as Ray does when it stops a job."""
    for one in [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            for child in children.read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _ancestors() -> set[int]:
    """Return the processes above this one. They have sent the same signal to the command too, which must get it once.

    Ray stops a job by a signal to every process below its actor, a terminal (which counts as process 0) and a service
    manager by one to the whole group. A second signal would end the command at once, without a checkpoint.
    """
    found, pid = {0}, os.getppid()
    while pid > 0:
        found.add(pid)
        try:
            # After the name, which is in brackets and may hold anything: the state, then the parent.
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


if __name__ == "__main__":
    sys.exit(main())
