"""RunSpec: frozen, strict, and with a digest of what decides the trajectory."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlplatform.specs.load import run_spec_from_mapping
from rlplatform.specs.run import RunSpec


def make(**changes: Any) -> RunSpec:
    data = {"algorithm": "ppo", "env": {"id": "CartPole-v1"}, "budget": {"total_timesteps": 1_000}}
    return run_spec_from_mapping({**data, **changes}, "test")


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make().seed = 1  # type: ignore[misc]


def test_a_spec_survives_json() -> None:
    spec = make(algorithm={"name": "sac", "action_noise": {"sigma": 0.1}}, tracking={"wandb": {"tags": ["a"]}})
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "cartpole-v1-ppo"),
        ({"env": {"id": "package.module:MyEnv"}}, "myenv-ppo"),
        ({"env": {"id": "ALE/Pong-v5"}}, "ale-pong-v5-ppo"),
        ({"name": "My-Run_1.0"}, "My-Run_1.0"),
    ],
)
def test_a_run_is_called_after_its_environment_and_algorithm_unless_named(changes: dict[str, Any], title: str) -> None:
    assert make(**changes).title == title


def test_a_wrapper_may_be_only_a_name() -> None:
    assert make(env={"id": "E-v0", "wrappers": ["a"]}) == make(env={"id": "E-v0", "wrappers": [{"name": "a"}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"tracking": {"tensorboard": False}},
        {"resources": {"cpus": 0.5, "gpus": 0.25, "memory_bytes": 1}},
    ],
)
def test_the_training_digest_leaves_out_what_cannot_change_the_trajectory(changes: dict[str, Any]) -> None:
    assert make(**changes).training_digest() == make().training_digest()
    assert make(**changes).digest() != make().digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"algorithm": {"name": "ppo", "gamma": 0.9}},
        {"env": {"id": "CartPole-v1", "n_envs": 2}},
        {"budget": {"total_timesteps": 1_001}},
        {"resources": {"torch_threads": 2}},
        {"resources": {"device": "cpu"}},
        {"evaluation": {"every_steps": 5}},
    ],
)
def test_the_training_digest_holds_what_can_change_the_trajectory(changes: dict[str, Any]) -> None:
    assert make(**changes).training_digest() != make().training_digest()


def test_the_digest_does_not_depend_on_what_was_written_out() -> None:
    assert make(seed=0, algorithm={"name": "ppo", "gamma": 0.99}).digest() == make().digest()
