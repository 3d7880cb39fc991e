from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rlplatform.envs.catalog import rewards
from rlplatform.envs.make import make_env
from rlplatform.envs.rewards import load_reward, optimized_cartpole, simple_cartpole
from rlplatform.errors import EnvError, UnknownNameError
from rlplatform.specs.run import EnvSpec

HERE = "tests.unit.envs.test_rewards"
NOT_A_FUNCTION = 3


def states(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array([[position, 0.0, angle, 0.0] for position, angle in pairs], dtype=np.float32)


def test_optimized_cartpole_is_its_formula() -> None:
    batch = states((0.0, 0.0), (1.0, -0.1), (-2.3, 0.2), (4.7, 0.4))
    expected = [
        min(5.5, 6.0),
        1.5 + 3 * math.exp(-0.8) + math.exp(-1.5),
        1.5 + 3 * math.exp(-1.6) + math.exp(-1.5 * 2.3**2) - 2 * 0.3,
        0.1,
    ]
    np.testing.assert_allclose(optimized_cartpole(batch, np.zeros(4), batch), expected, rtol=1e-5)


def test_simple_cartpole_is_its_formula() -> None:
    batch = states((0.0, 0.0), (3.0, -0.1), (0.0, 0.2095), (0.0, 0.4))
    np.testing.assert_allclose(simple_cartpole(batch, np.zeros(4), batch), [1.0, 1 - 0.1 / 0.2095, 0.1, 0.1], rtol=1e-5)


@pytest.mark.parametrize("name", rewards())
def test_every_named_reward_trains_while_info_and_evaluation_keep_the_true_one(name: str) -> None:
    env = EnvSpec(id="CartPole-v1", reward=name)
    training, evaluation = make_env(env, training=True), make_env(env, training=False)
    previous, _ = training.reset(seed=3)
    evaluation.reset(seed=3)
    shaped, ended = [], False
    while not ended:
        obs, reward, terminated, truncated, info = training.step(0)
        assert evaluation.step(0)[1] == info["true_reward"] == 1.0
        expected = load_reward(name)(previous[None], np.array([0]), obs[None])[0]
        assert reward == pytest.approx(expected)
        shaped.append(float(reward))
        previous, ended = obs, terminated or truncated
    assert info["episode"]["r"] == pytest.approx(sum(shaped), abs=1e-5)
    assert info["episode"]["l"] == info["true_return"] == len(shaped)


def progress(obs: Any, action: Any, next_obs: Any) -> Any:
    return next_obs[:, 0] - obs[:, 0] + 10.0 * action


def flat(obs: Any, action: Any, next_obs: Any) -> Any:
    return 1.0


def broken(obs: Any, action: Any, next_obs: Any) -> Any:
    return np.full(len(next_obs), np.nan)


def two_arguments(obs: Any, action: Any) -> Any:
    return np.zeros(len(obs))


def test_a_function_that_takes_other_arguments_is_named_and_not_the_environment() -> None:
    env = make_env(EnvSpec(id="CartPole-v1", reward=f"{HERE}:two_arguments"), training=True)
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"The reward function 'two_arguments' must take \(obs, action, next_obs\)"):
        env.step(1)


def test_ones_own_function_gets_observation_action_and_next_observation() -> None:
    env = make_env(EnvSpec(id="CartPole-v1", reward=f"{HERE}:progress"), training=True)
    first, _ = env.reset(seed=0)
    second, reward, *_ = env.step(1)
    assert reward == pytest.approx(second[0] - first[0] + 10.0)
    third, reward, *_ = env.step(0)
    assert reward == pytest.approx(third[0] - second[0])


@pytest.mark.parametrize(("name", "got"), [("flat", r"shape \(\)"), ("broken", "nan")])
def test_a_function_that_is_not_batched_or_not_finite_is_refused(name: str, got: str) -> None:
    env = make_env(EnvSpec(id="CartPole-v1", reward=f"{HERE}:{name}"), training=True)
    env.reset(seed=0)
    with pytest.raises(EnvError, match=rf"'{name}' must give finite numbers of shape \(1,\).*{got}"):
        env.step(0)


def test_unknown_names_and_things_that_are_no_functions_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown reward 'simple_cartpol'. Did you mean .*'simple_cartpole'"):
        load_reward("simple_cartpol")
    with pytest.raises(EnvError, match="cannot be loaded"):
        load_reward(f"{HERE}:nothing")
    with pytest.raises(EnvError, match="must name a function"):
        load_reward(f"{HERE}:NOT_A_FUNCTION")
