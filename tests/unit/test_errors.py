"""Every error pickles, says whose fault it is, and helps with names."""

from __future__ import annotations

import pickle

import pytest

from rlplatform import errors
from rlplatform.errors import RlPlatformError, did_you_mean, unknown_name

EVERY_ERROR = [
    found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, RlPlatformError)
]


@pytest.mark.parametrize("error_class", EVERY_ERROR)
def test_every_error_pickles_with_its_message(error_class: type[RlPlatformError]) -> None:
    copy = pickle.loads(pickle.dumps(error_class("what, got, rule, what to do")))
    assert type(copy) is error_class
    assert str(copy) == "what, got, rule, what to do"


@pytest.mark.parametrize("error_class", EVERY_ERROR)
def test_every_error_says_when_it_is_raised_and_whose_fault_it_is(error_class: type[RlPlatformError]) -> None:
    assert (error_class.__doc__ or "").startswith(("Raised when ", "Base of "))
    assert error_class.exit_code in {1, 2}


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("cartpol", ["CartPole", "Acrobot"], "Did you mean 'CartPole'?"),
        ("zzz", ["b", "a"], "Known: a, b."),
        ("zzz", [f"name{i:02}" for i in range(11)], "11 are known; "),
    ],
)
def test_a_name_gets_the_nearest_known_ones(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known).startswith(hint)


def test_an_unknown_name_says_how_to_list_the_known_ones() -> None:
    error = unknown_name("reward", "cartpol", ["cartpole"], "rlplatform rewards")
    assert str(error) == "Unknown reward 'cartpol'. Did you mean 'cartpole'? List them with `rlplatform rewards`."
