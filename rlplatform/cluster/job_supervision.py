"""What a job's supervisor does next: pure functions over the clock and over how an attempt ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from rlplatform.cluster.job import JOB_STOP_WAIT_S
from rlplatform.cluster.retry import DEFAULT_MAX_RETRIES

DEADLINE_CODE = 124
"""Exit code of a job whose time was over, as of `timeout`."""
STOPPED_CODE = 130
HOPELESS = {
    2: "what it was asked to do is wrong",
    126: "its command is not executable",
    127: "there is no such command",
}
"""Exit codes that would come again at every attempt."""
LONGEST_PAUSE_S = 60.0

Asked = Literal["deadline", "stop"]


@dataclass(frozen=True)
class Limits:
    """What a job may use."""

    retries: int = DEFAULT_MAX_RETRIES
    """How often a command that fails is started again."""
    deadline_s: float | None = None
    """Seconds from the start of the first attempt in which all of them must be done. None: no end."""
    stop_wait_s: float = JOB_STOP_WAIT_S
    """Seconds that the command gets to write its checkpoints once it is asked to stop."""


@dataclass(frozen=True)
class Look:
    """What to do about an attempt that goes on."""

    send: signal.Signals | None
    """Signal to send now."""
    again_in_s: float | None
    """Seconds until there is something to decide again. None: when the command has ended."""


@dataclass(frozen=True)
class Verdict:
    """What follows when an attempt has ended."""

    retry_in_s: float | None
    """Seconds until the next attempt. None: the job is over."""
    exit_code: int
    reason: str


def look(elapsed_s: float, asked_at_s: float | None, limits: Limits) -> Look:
    """Decide whether the command must be asked to stop, or ended.

    Args:
        elapsed_s: Seconds since the job began.
        asked_at_s: When it was asked to stop, in the same seconds. None: it was not.
        limits: What the job may use.
    """
    if asked_at_s is not None:
        left_s = asked_at_s + limits.stop_wait_s - elapsed_s
        return Look(None, left_s) if left_s > 0 else Look(signal.SIGKILL, None)
    if limits.deadline_s is None:
        return Look(None, None)
    left_s = limits.deadline_s - elapsed_s
    return Look(None, left_s) if left_s > 0 else Look(signal.SIGTERM, limits.stop_wait_s)


def decide(exit_code: int, attempt: int, elapsed_s: float, asked: Asked | None, limits: Limits) -> Verdict:
    """Decide whether a command that ended is started again, and else with which exit code the job ends.

    Args:
        exit_code: The command's, as a shell counts: 128 and the signal's number when one ended it.
        attempt: Which attempt it was, from 1.
        elapsed_s: Seconds since the job began.
        asked: Why it was asked to stop. None: it was not.
        limits: What the job may use.
    """
    if exit_code == 0:
        return Verdict(None, 0, "done")
    how = f"attempt {attempt} ended with exit code {exit_code}"
    if asked == "stop":
        return Verdict(None, exit_code, f"stopped; {how}")
    if asked == "deadline":
        return Verdict(None, DEADLINE_CODE, f"stopped at its deadline of {limits.deadline_s:g} s; {how}")
    if exit_code == STOPPED_CODE:
        return Verdict(None, exit_code, "what it trains was stopped or paused by somebody, so it is not tried again")
    if exit_code in HOPELESS:
        return Verdict(None, exit_code, f"{how}: {HOPELESS[exit_code]}, so it is not tried again")
    if attempt > limits.retries:
        return Verdict(None, exit_code, f"{how}; none of {limits.retries} retries is left")
    pause_s = min(2.0 ** (attempt - 1), LONGEST_PAUSE_S)
    if limits.deadline_s is not None and elapsed_s + pause_s >= limits.deadline_s:
        return Verdict(None, exit_code, f"{how}; its deadline of {limits.deadline_s:g} s leaves no time to try again")
    return Verdict(pause_s, exit_code, f"{how}; retry {attempt} of {limits.retries} in {pause_s:g} s")
