"""Training moves a policy away from its initialisation and makes it better: short runs, not a measure of quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from rlplatform.specs.run import RunSpec
from rlplatform.train.evaluate import evaluate
from rlplatform.train.metrics import Metrics
from rlplatform.train.policy_folder import Policy
from rlplatform.train.resolve import resolve
from rlplatform.train.session import TrainingSession


@dataclass(frozen=True)
class Case:
    """A run that must end above a return which a policy that has learned nothing stays far below."""

    algorithm: Mapping[str, Any]
    env: Mapping[str, Any]
    total_timesteps: int
    untrained_below: float
    trained_above: float


CASES = {
    "ppo": Case(
        {"name": "ppo", "n_steps": 128, "batch_size": 256, "learning_rate": 1e-3},
        {"id": "CartPole-v1", "n_envs": 8},
        20_480,
        untrained_below=200,
        trained_above=350,
    ),
    "dqn": Case(
        {
            "name": "dqn",
            "learning_rate": 1e-3,
            "batch_size": 64,
            "learning_starts": 1_000,
            "train_freq": 64,
            "gradient_steps": 32,
            "target_update_interval": 250,
            "exploration_fraction": 0.4,
        },
        {"id": "CartPole-v1"},
        20_000,
        untrained_below=50,
        trained_above=130,
    ),
    "grpo": Case(
        {"name": "grpo", "group_size": 16},
        {"id": "CartPole-v1", "n_envs": 8},
        60_000,
        untrained_below=200,
        trained_above=400,
    ),
    "sac": Case(
        {"name": "sac", "learning_rate": 2e-3, "batch_size": 128, "policy_kwargs": {"net_arch": [64, 64]}},
        {"id": "Pendulum-v1"},
        3_000,
        untrained_below=-800,
        trained_above=-400,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_training_moves_every_weight_and_beats_the_untrained_policy(name: str) -> None:
    case = CASES[name]
    session = TrainingSession(
        resolve(
            RunSpec.model_validate(
                {
                    "algorithm": case.algorithm,
                    "env": case.env,
                    "budget": {"total_timesteps": case.total_timesteps},
                    "seed": 3,
                }
            )
        ),
        Metrics(),
    )
    before = {key: value.clone() for key, value in session.model.policy.named_parameters()}
    untrained = _mean_return(session)
    while not session.done:
        session.advance()
    trained = _mean_return(session)
    session.close()

    assert [key for key, value in session.model.policy.named_parameters() if torch.equal(value, before[key])] == []
    assert untrained < case.untrained_below
    assert trained > case.trained_above


def _mean_return(session: TrainingSession) -> float:
    return evaluate(Policy(session.model, None), session.spec.env, n_episodes=20, seed=17).return_mean
