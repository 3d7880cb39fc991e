from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env as make_bare_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from rlplatform.envs.make import make_env, make_vec_env, resolve_env, reward_threshold, spaces_of
from rlplatform.errors import EnvError, MissingPackageError, UnknownNameError
from rlplatform.specs.run import EnvSpec
from tests.envs_for_tests import TinyEnv
from tests.unit.envs.helpers import actions_for, assert_same, trace

HERE = "tests.unit.envs.test_make"


class WrongShape(TinyEnv):
    """Says one shape and gives another."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}


class Failing(TinyEnv):
    """Fails in its first step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise KeyError("wheel")


def not_an_env() -> int:
    return 3


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "LunarLander-v3"])
def test_training_environments_give_what_bare_stable_baselines3_gives(env_id: str) -> None:
    ours = make_vec_env(EnvSpec(id=env_id, n_envs=2, backend="sync"), seed=5)
    bare = make_bare_vec_env(env_id, n_envs=2, seed=5)
    assert isinstance(ours, DummyVecEnv)
    assert_same([(ours.reset(),)], [(bare.reset(),)])
    actions = actions_for(bare, 260, seed=0)
    assert_same(trace(ours, actions), trace(bare, actions))


def test_resolving_decides_every_auto_and_resolving_again_changes_nothing() -> None:
    asked = EnvSpec(id="CartPole-v1", n_envs=3, backend="subproc", n_workers=8)
    resolved = resolve_env(asked, seed=0)
    assert (resolved.backend, resolved.n_workers, resolved.state) == ("subproc", 3, "replay")
    assert resolve_env(resolved, seed=0) == resolved
    assert resolve_env(EnvSpec(id="CartPole-v1", n_envs=3, backend="subproc"), seed=0).n_workers == 3


def test_evaluation_environments_are_bare() -> None:
    env = make_env(EnvSpec(id="CartPole-v1", reward="simple_cartpole"), training=False)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(0)
    assert reward == 1.0
    assert info == {}


def test_kwargs_wrappers_and_limits_are_applied_in_order() -> None:
    env = make_env(
        EnvSpec(
            id="Pendulum-v1",
            kwargs={"g": 5.0},
            max_episode_steps=4,
            wrappers=({"name": "rescale_action", "kwargs": {"min_action": -1.0, "max_action": 1.0}}, "time_aware"),
        ),
        training=True,
        render_mode="rgb_array",
    )
    assert env.unwrapped.g == 5.0  # type: ignore[attr-defined]
    assert env.action_space.high.tolist() == [1.0]  # type: ignore[attr-defined]
    assert env.observation_space.shape == (4,)
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(4)] == [False, False, False, True]
    assert env.render().shape[-1] == 3  # type: ignore[union-attr]


def test_ones_own_class_works_by_its_path_and_is_truncated() -> None:
    spec = EnvSpec(id="tests.envs_for_tests:TinyEnv", kwargs={"end_probability": 0.0}, max_episode_steps=3)
    env = make_env(spec, training=True)
    env.reset(seed=0)
    *_, truncated, info = [env.step(0) for _ in range(3)][-1]
    assert truncated
    assert info["episode"]["l"] == 3


def test_spaces_and_threshold_are_those_of_the_wrapped_environment() -> None:
    observations, actions = spaces_of(EnvSpec(id="CartPole-v1", wrappers=("time_aware",)))
    assert (observations.shape, actions) == ((5,), gym.spaces.Discrete(2))
    assert reward_threshold(EnvSpec(id="CartPole-v1")) == 475.0
    assert reward_threshold(EnvSpec(id="Pendulum-v1")) is None
    assert reward_threshold(EnvSpec(id="tests.envs_for_tests:TinyEnv")) is None


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        ({"id": "LunarLander-v2"}, UnknownNameError, "'LunarLander-v2'. Did you mean 'LunarLander-v3'"),
        ({"id": "Lunr-v3"}, UnknownNameError, "Unknown environment 'Lunr-v3'.*'LunarLander-v3'"),
        ({"id": "ALE/Pong-v5"}, MissingPackageError, r'needs the package .ale_py.*pip install "gymnasium\[atari\]"'),
        ({"id": "HalfCheetah-v5"}, MissingPackageError, r'pip install "gymnasium\[mujoco\]"'),
        ({"id": "no_such_module:Some-v0"}, EnvError, "module of the environment 'no_such_module:Some-v0' cannot be"),
        ({"id": "no_such_module:Some"}, EnvError, "'no_such_module:Some' cannot be loaded"),
        ({"id": f"{HERE}:not_an_env"}, EnvError, "must name a Gymnasium environment, got .* which makes a int"),
        ({"id": f"{HERE}:WrongShape"}, EnvError, r"observations of shape \(4,\).* got ndarray of shape \(2,\)"),
        ({"id": f"{HERE}:Failing"}, EnvError, "fails in its first steps: KeyError: 'wheel'"),
        ({"id": "CartPole-v1", "kwargs": {"colour": 1}}, EnvError, "cannot be made with `kwargs` {'colour': 1}"),
        ({"id": "CartPole-v1", "wrappers": ["clip_action"]}, EnvError, "wrapper 'clip_action' cannot be made"),
        ({"id": "CartPole-v1", "wrappers": ["time_awar"]}, UnknownNameError, "Did you mean 'time_aware'"),
        ({"id": "CartPole-v1", "reward": "simple"}, UnknownNameError, "Unknown reward 'simple'"),
    ],
    ids=lambda value: str(value.get("id")) if isinstance(value, dict) else None,
)
def test_what_cannot_be_made_is_told_before_training(env: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_env(EnvSpec.model_validate(env), seed=0)
