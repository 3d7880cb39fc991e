from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_util import make_vec_env as make_bare_vec_env
from stable_baselines3.common.monitor import Monitor

from rlplatform.envs.make import make_vec_env, resolve_env
from rlplatform.envs.vector import GymVectorVecEnv
from rlplatform.errors import EnvError
from rlplatform.specs.run import EnvSpec
from tests.unit.envs.helpers import actions_for, assert_same, ends_of, trace

LIMIT = 30


def cartpole() -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1", max_episode_steps=LIMIT)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED], ids=lambda mode: mode.value)
def test_a_vector_environment_of_either_mode_gives_what_stable_baselines3_gives(mode: AutoresetMode) -> None:
    venv = GymVectorVecEnv(SyncVectorEnv([cartpole] * 4, autoreset_mode=mode))
    bare = make_bare_vec_env(lambda: Monitor(cartpole()), n_envs=4)
    actions = actions_for(venv, 120, seed=0)
    for each in (venv, bare):
        each.seed(7)
        each.reset()
    assert_same(trace(venv, actions), trace(bare, actions))


def test_a_mode_that_cannot_be_brought_to_the_same_step_is_refused_by_name() -> None:
    with pytest.raises(EnvError, match=r"SyncVectorEnv resets in the step after .* `env.backend: sync`"):
        GymVectorVecEnv(SyncVectorEnv([cartpole] * 2, autoreset_mode=AutoresetMode.NEXT_STEP))


def test_finished_cartpoles_are_reset_in_the_same_step_and_the_others_go_on() -> None:
    venv = make_vec_env(EnvSpec(id="CartPole-v1", n_envs=16, backend="vector", max_episode_steps=LIMIT), seed=0)
    single = gym.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    obs = venv.reset()
    ends = 0
    for action in actions_for(venv, 100, seed=3):
        before, (obs, rewards, dones, infos) = obs, venv.step(action)
        assert isinstance(before, np.ndarray)
        assert isinstance(obs, np.ndarray)
        assert rewards.dtype == np.float32
        assert (rewards == 1.0).all()
        assert (np.abs(obs[dones]) <= 0.05).all(), "a first observation lies within CartPole's start bounds"
        for i, info in enumerate(infos):
            single.state = tuple(map(float, before[i]))  # type: ignore[attr-defined]
            expected, _, terminated, _, _ = single.step(action[i])
            single.steps_beyond_terminated = None  # type: ignore[attr-defined]
            after = info["terminal_observation"] if dones[i] else obs[i]
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
            assert bool(info) == bool(dones[i]), "info holds something only where an episode ends"
            if dones[i]:
                assert info["TimeLimit.truncated"] == (not terminated)
                ends += 1
    assert ends > 20


def test_episode_statistics_are_the_sums_of_what_was_seen() -> None:
    venv = make_vec_env(EnvSpec(id="CartPole-v1", n_envs=3, backend="vector", reward="optimized_cartpole"), seed=1)
    venv.reset()
    returns, true_returns = np.zeros(3), np.zeros(3)
    n_ends = 0
    for action in actions_for(venv, 150, seed=5):
        _, rewards, dones, infos = venv.step(action)
        returns += rewards
        true_returns += [info["true_reward"] for info in infos]
        for i in np.flatnonzero(dones):
            assert infos[i]["episode"]["r"] == pytest.approx(returns[i], rel=1e-5)
            assert infos[i]["true_return"] == infos[i]["episode"]["l"] == true_returns[i]
            n_ends += 1
        returns[dones] = true_returns[dones] = 0.0
    assert n_ends > 5


@pytest.mark.parametrize("reward", ["optimized_cartpole", "simple_cartpole"])
def test_a_reward_function_gives_the_same_batched_and_one_by_one(reward: str) -> None:
    env = EnvSpec(id="CartPole-v1", n_envs=2, reward=reward, max_episode_steps=LIMIT)
    vector = GymVectorVecEnv(
        SyncVectorEnv([cartpole] * 2, autoreset_mode=AutoresetMode.SAME_STEP),
        getattr(__import__("rlplatform.envs.rewards", fromlist=[reward]), reward),
    )
    sync = make_vec_env(env.model_copy(update={"backend": "sync"}), seed=4)
    vector.seed(4)
    vector.reset()
    sync.reset()
    for action in actions_for(vector, 80, seed=0):
        one, other = vector.step(action), sync.step(action)
        assert_same([(*one[:3], *ends_of(one[2], one[3]))], [(*other[:3], *ends_of(other[2], other[3]))])
        assert [info["true_reward"] for info in one[3]] == [info["true_reward"] for info in other[3]]


@pytest.mark.parametrize(
    ("env", "backend"),
    [
        (EnvSpec(id="CartPole-v1", n_envs=8), "vector"),
        (EnvSpec(id="CartPole-v1", n_envs=8, reward="simple_cartpole"), "vector"),
        (EnvSpec(id="CartPole-v1", n_envs=4), "sync"),
        (EnvSpec(id="CartPole-v1", n_envs=8, wrappers=("time_aware",)), "sync"),
        (EnvSpec(id="Acrobot-v1", n_envs=8), "sync"),
    ],
    ids=["vector", "reward", "few", "wrapped", "no vector version"],
)
def test_auto_is_the_vector_version_where_it_gives_the_same(env: EnvSpec, backend: str) -> None:
    assert resolve_env(env, seed=0).backend == backend


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (EnvSpec(id="LunarLander-v3", backend="vector"), "'LunarLander-v3' has no vector version"),
        (
            EnvSpec(id="CartPole-v1", backend="vector", wrappers=("time_aware",)),
            "cannot wrap single environments, got the wrappers time_aware",
        ),
        (EnvSpec(id="CartPole-v1", backend="vector", kwargs={"color": 1}), r"cannot be made with `env.kwargs`"),
    ],
    ids=["no vector version", "wrappers", "kwargs"],
)
def test_what_the_vector_backend_cannot_do_is_an_error(env: EnvSpec, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        make_vec_env(env, seed=0)


def test_methods_and_attributes_are_those_of_the_whole() -> None:
    venv = make_vec_env(EnvSpec(id="CartPole-v1", n_envs=2, backend="vector"), seed=0)
    assert venv.get_attr("gravity") == [9.8, 9.8]
    venv.set_attr("gravity", 5.0)
    assert venv.get_attr("gravity", indices=0) == [5.0]
    assert not venv.has_attr("action_masks")
    assert venv.env_is_wrapped(Monitor) == [False, False]
