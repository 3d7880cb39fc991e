"""The states of a run and the steps between them: the one state machine."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from rlplatform.errors import RunStateError

RunState = Literal["created", "queued", "running", "paused", "completed", "stopped", "failed"]

NEXT_STATES: MappingProxyType[RunState, tuple[RunState, ...]] = MappingProxyType({
    "created": ("queued", "running", "stopped", "failed"),
    "queued": ("running", "paused", "stopped", "failed"),
    "running": ("queued", "paused", "completed", "stopped", "failed"),
    "paused": ("queued", "running", "stopped", "failed"),
    "completed": ("queued", "running"),
    "stopped": ("queued", "running"),
    "failed": ("queued", "running"),
})
"""Where each state leads. ``running`` → ``queued`` is a retry; ``completed`` goes on only with a larger budget."""

FINISHED: frozenset[RunState] = frozenset({"completed", "stopped", "failed"})
"""The states in which nothing more happens unless somebody asks."""


def transition(old: RunState, new: RunState) -> RunState:
    """Return ``new`` if a run may go there from ``old``. Staying is always allowed: a killed run resumes as ``running``.

    Raises:
        RunStateError: If the state machine has no such step.
    """
    if new == old or new in NEXT_STATES[old]:
        return new
    raise RunStateError(f"A run that is {old} cannot become {new}. From {old} it goes to {', '.join(NEXT_STATES[old])}.")
