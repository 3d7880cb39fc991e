"""What people write for seeds and states."""

from __future__ import annotations

import pytest

from rlplatform.commands.options import check_state, check_which, parse_duration, parse_seeds
from rlplatform.errors import SpecError, UnknownNameError


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (3,)), ("1,2,3", (1, 2, 3)), ("1-4", (1, 2, 3, 4)), ("7, 1-2,7", (7, 1, 2)), ("0", (0,))]
)
def test_seeds_are_lists_and_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1-", "4-1", "1.5", "0-100000000000", "1-" + "9" * 30])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"`--seeds` must .* Write `1,2,3` or `1-4`\."):
        parse_seeds(text)


def test_which_policy_is_best_or_last() -> None:
    assert check_which("last") == "last"
    with pytest.raises(SpecError, match="must be best or last, got 'newest'"):
        check_which("newest")


def test_an_unknown_state_names_the_nearest() -> None:
    assert check_state("paused") == "paused"
    with pytest.raises(UnknownNameError, match="Did you mean 'stopped'"):
        check_state("stoped")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), (" 1D ", 86_400), ("1d2h3m4s", 93_784)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "0s", "-1h", "1h 30", "30m1h", "soon", "1e3s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"`--deadline` must be a time above 0 with its units, got .* Write 2h"):
        parse_duration(text, "--deadline")
