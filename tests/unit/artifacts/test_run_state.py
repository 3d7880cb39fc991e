from __future__ import annotations

from typing import get_args

import pytest

from rlplatform.artifacts.run_state import AT_REST, FINISHED, NEXT_STATES, RunState, transition
from rlplatform.errors import RunStateError

STATES: tuple[RunState, ...] = get_args(RunState)


def test_every_state_is_in_the_table() -> None:
    assert set(NEXT_STATES) == set(STATES)


@pytest.mark.parametrize("old", STATES)
@pytest.mark.parametrize("new", STATES)
def test_exactly_the_listed_steps_and_staying_are_allowed(old: RunState, new: RunState) -> None:
    if new == old or new in NEXT_STATES[old]:
        assert transition(old, new) == new
    else:
        with pytest.raises(RunStateError, match=f"{old} cannot become {new}. From {old} it goes to "):
            transition(old, new)


@pytest.mark.parametrize("state", sorted(AT_REST))
def test_what_is_at_rest_can_be_resumed(state: RunState) -> None:
    assert {"queued", "running"} <= set(NEXT_STATES[state])


@pytest.mark.parametrize("state", STATES)
def test_only_a_running_run_completes(state: RunState) -> None:
    assert ("completed" in NEXT_STATES[state]) == (state == "running")


def test_a_finished_run_ends_in_no_other_way() -> None:
    for state in FINISHED:
        assert not FINISHED & set(NEXT_STATES[state])
