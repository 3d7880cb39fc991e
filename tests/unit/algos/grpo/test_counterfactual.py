"""The mode `actions`: every action of a state is tried, and a reward that none of them changes teaches nothing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from rlplatform.algos.grpo.algorithm import GRPO
from rlplatform.algos.grpo.counterfactual import Counterfactual
from rlplatform.errors import AlgorithmError
from tests.unit.algos.grpo.envs import CounterEnv, ForgetfulEnv

SMALL: dict[str, Any] = {"group_size": 4, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}}


def make(env: Any, **options: Any) -> GRPO:
    return GRPO("MlpPolicy", env, advantage="actions", device="cpu", seed=1, **{**SMALL, **options})


def test_each_action_has_the_reward_that_it_leads_to() -> None:
    env = DummyVecEnv([CounterEnv] * 3)
    model = make(env)
    obs = env.reset()
    values, n_steps = Counterfactual(env, horizon=1).values(model.policy, np.asarray(obs), 0.9)
    assert values.tolist() == [[0.0, 1.0]] * 3
    assert n_steps == 6
    moved: Any = env.step(np.zeros(3, int))[0]
    assert moved[:, 1].tolist() == [1.0] * 3, "the environments themselves had not moved"


def test_what_follows_is_discounted_until_the_episode_ends() -> None:
    env = DummyVecEnv([lambda: CounterEnv(length=3)])
    model = make(env)
    with torch.no_grad():
        model.policy.action_net.bias.copy_(torch.tensor([-50.0, 50.0]))  # Always action 1.
    values, n_steps = Counterfactual(env, horizon=9).values(model.policy, np.asarray(env.reset()), 0.5)
    assert values.tolist() == [[0.75, 1.75]]
    assert n_steps == 6


def test_it_learns_the_better_action_and_counts_counterfactual_steps() -> None:
    model = make(DummyVecEnv([CounterEnv] * 2), action_horizon=1, learning_rate=0.02)
    model.learn(400)
    # 20 steps of an update, two tries for each, and 60 to check copies: at most.
    assert model.num_timesteps >= 400
    obs = np.array([[c, t] for c in range(3) for t in range(3)], np.float32)
    assert model.predict(obs, deterministic=True)[0].tolist() == [1] * 9


def test_an_action_independent_reward_gives_no_advantage_and_is_warned_about() -> None:
    """The defect of sb3-grpo: its rewards of the next state were the same for all actions of a group."""

    def reward(state: torch.Tensor, action: torch.Tensor, next_state: torch.Tensor) -> torch.Tensor:
        return 1.0 - next_state[:, 1:].abs() * 0.1

    model = make(DummyVecEnv([CounterEnv] * 2), reward_function=reward, ent_coef=0.0)
    before = [value.clone() for value in model.policy.parameters()]
    with pytest.warns(UserWarning, match="Every action led to the same reward"):
        model.learn(20)
    assert all(torch.equal(one, other) for one, other in zip(before, model.policy.parameters(), strict=True))


def test_sb3_grpos_own_reward_needs_a_second_step_in_cartpole() -> None:
    for horizon, differs in ((1, False), (2, True)):
        env = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
        env.seed(0)
        model = make(env)
        counterfactual = Counterfactual(env, horizon, "optimized_cartpole")
        values, _ = counterfactual.values(model.policy, np.asarray(env.reset()), 0.99)
        assert bool(np.ptp(values, axis=1).min() > 1e-6) is differs


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
def test_classic_control_can_be_copied(env_id: str) -> None:
    env = DummyVecEnv([lambda: gym.make(env_id)])
    env.reset()
    assert Counterfactual(env, 1).check_copies() > 0


def test_an_environment_whose_copies_differ_is_refused_by_name() -> None:
    model = make(DummyVecEnv([lambda: gym.make("LunarLander-v3")]))
    with pytest.raises(AlgorithmError, match=r"a copy of `LunarLander-v3` does not go on as the original"):
        model.learn(1)
    with pytest.raises(AlgorithmError, match=r"a copy of `ForgetfulEnv` does not go on"):
        make(DummyVecEnv([ForgetfulEnv])).learn(1)


def test_what_cannot_be_copied_from_here_is_refused() -> None:
    with pytest.raises(AlgorithmError, match="cannot look through the wrapper VecFrameStack"):
        make(VecFrameStack(DummyVecEnv([CounterEnv]), 2))
    with pytest.raises(AlgorithmError, match="needs Discrete actions and Box observations"):
        make(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
