"""What may change in a run that has begun."""

from __future__ import annotations

from typing import Any

import pytest

from rlplatform.errors import SpecError
from rlplatform.specs.run import RunSpec
from rlplatform.train.amend import check_amendment


def _spec(**changes: Any) -> RunSpec:
    spec: dict[str, Any] = {
        "algorithm": {"name": "ppo", "n_steps": 64, "batch_size": 64},
        "env": {"id": "CartPole-v1"},
        "budget": {"total_timesteps": 1000},
    }
    for path, value in changes.items():
        part, _, field = path.partition("__")
        spec.setdefault(part, {})[field] = value
    return RunSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("budget__total_timesteps", 5000),
        ("algorithm__learning_rate", 1e-4),
        ("algorithm__clip_range", 0.1),
        ("checkpoint__every_steps", 77),
        ("early_stop__target_return", 9.0),
        ("resources__cpus", 2.0),
    ],
)
def test_a_live_run_can_take_it(path: str, value: Any) -> None:
    (change,) = check_amendment(_spec(), _spec(**{path: value}))
    assert (change.field, change.new) == (path.replace("__", "."), value)


@pytest.mark.parametrize(
    ("path", "value"),
    [("env__id", "Acrobot-v1"), ("env__n_envs", 2), ("resources__torch_threads", 2)],
)
def test_what_is_fixed_is_refused_by_name(path: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"`{path.replace('__', '.')}` is fixed once a run has begun, got {value!r}"):
        check_amendment(_spec(), _spec(**{path: value}))


def test_an_option_that_shaped_the_model_is_refused_by_the_algorithm() -> None:
    with pytest.raises(SpecError, match=r"`algorithm.n_steps` cannot change on a live model, got 128 instead of 64"):
        check_amendment(_spec(), _spec(algorithm__n_steps=128))


def test_another_seed_is_another_run() -> None:
    with pytest.raises(SpecError, match="`seed` is fixed"):
        check_amendment(_spec(), _spec().model_copy(update={"seed": 1}))
