"""The states of a run and the steps between them: the one state machine."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from rlplatform.errors import RunStateError

RunState = Literal["created", "queued", "running", "paused", "completed", "stopped", "failed"]

NEXT_STATES: MappingProxyType[RunState, tuple[RunState, ...]] = MappingProxyType(
    {
        "created": ("queued", "running", "stopped", "failed"),
        "queued": ("running", "paused", "stopped", "failed"),
        "running": ("queued", "paused", "completed", "stopped", "failed"),
        "paused": ("queued", "running", "stopped", "failed"),
        "completed": ("queued", "running"),
        "stopped": ("queued", "running"),
        "failed": ("queued", "running"),
    }
)
"""Where each state leads. ``running`` → ``queued`` is a retry; ``completed`` goes on only with a larger budget."""

FINISHED: frozenset[RunState] = frozenset({"completed", "stopped", "failed"})
"""The states in which nothing more happens unless somebody asks."""

AT_REST: frozenset[RunState] = FINISHED | {"paused"}
"""The states in which no process owns the run."""


def transition(old: RunState, new: RunState) -> RunState:
    """Return ``new`` if a run may go there from ``old``. Staying is allowed: a killed run resumes as ``running``.

    Raises:
        RunStateError: If the state machine has no such step.
    """
    if new == old or new in NEXT_STATES[old]:
        return new
    ways = ", ".join(NEXT_STATES[old])
    raise RunStateError(f"A run that is {old} cannot become {new}. From {old} it goes to {ways}.")
