"""What follows when a run's actor is gone: a pure function that returns a decision with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_MAX_RETRIES = 3

Cause = Literal["died", "preempted", "setup"]


@dataclass(frozen=True)
class Death:
    """How a run's actor ended without telling how the run ended."""

    cause: Cause
    """`died`: process or node is gone. `preempted`: the node was taken away. `setup`: the actor could not be made."""
    message: str


@dataclass(frozen=True)
class RetryDecision:
    """Whether the run is queued again, what that counts, and why."""

    retry: bool
    retries: int
    """Retries used after this decision."""
    reason: str


def decide_retry(death: Death, retries: int, max_retries: int) -> RetryDecision:
    """Decide whether a run whose actor is gone goes on from its last good checkpoint.

    A preempted node is nobody's failure and uses up no retry; what cannot be set up would fail again and gets none.

    Args:
        death: What happened.
        retries: Retries used so far.
        max_retries: Retries allowed.
    """
    if death.cause == "setup":
        return RetryDecision(False, retries, f"The run's process could not be set up: {death.message}")
    if death.cause == "preempted":
        return RetryDecision(True, retries, f"The node was taken away: {death.message}")
    if retries < max_retries:
        return RetryDecision(True, retries + 1, f"Retry {retries + 1} of {max_retries}: {death.message}")
    return RetryDecision(
        False,
        retries,
        f"The run's process died {retries + 1} times; {max_retries} retries are allowed. Last time: {death.message}",
    )
