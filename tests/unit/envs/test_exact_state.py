from __future__ import annotations

import contextlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor, VecNormalize

from rlplatform.envs.make import make_env, make_vec_env, resolve_env
from rlplatform.envs.recorder import Recorder, same_bits
from rlplatform.envs.replay import restore_envs, snapshot_envs
from rlplatform.errors import CheckpointError, SpecError
from rlplatform.specs.run import EnvSpec
from tests.unit.envs.helpers import actions_for, assert_same, saved, trace

REPLAYED = [
    EnvSpec(id="CartPole-v1"),
    EnvSpec(id="LunarLander-v3"),
    EnvSpec(id="LunarLander-v3", kwargs={"enable_wind": True}),
    EnvSpec(id="LunarLanderContinuous-v3", wrappers=("landing_monitor",)),
    EnvSpec(id="Acrobot-v1"),
    EnvSpec(id="Pendulum-v1"),
    EnvSpec(id="MountainCar-v0"),
    EnvSpec(id="MountainCarContinuous-v0"),
    EnvSpec(id="CartPole-v1", reward="optimized_cartpole", wrappers=("time_aware",)),
    EnvSpec(id="tests.envs_for_tests:TinyEnv", kwargs={"observations": "dict", "actions": "multi_binary"}),
]


def short(env: EnvSpec, backend: str, n_envs: int = 3) -> EnvSpec:
    # Truncated after 35 steps, so that every trace below holds both kinds of ends.
    limit = None if env.id.startswith("tests.") else 35
    workers = 2 if backend == "subproc" else None
    return env.model_copy(
        update={"backend": backend, "n_envs": n_envs, "max_episode_steps": limit, "n_workers": workers}
    )


def check_restores(env: EnvSpec) -> None:
    with (
        contextlib.closing(make_vec_env(env, seed=3)) as original,
        contextlib.closing(make_vec_env(env, seed=8)) as fresh,
    ):
        original.reset()
        actions = actions_for(original, 150, seed=1)
        for action in actions[:80]:
            last_obs = original.step(action)[0]
        state = saved(original)
        assert same_bits(restore_envs(fresh, state), last_obs)
        expected = trace(original, actions[80:])
        assert sum(len(step) - 3 for step in expected) >= 3, "the trace must hold ends of episodes"
        assert_same(trace(fresh, actions[80:]), expected)
        assert same_bits(fresh.reset(), original.reset())


@pytest.mark.parametrize("env", REPLAYED, ids=lambda env: env.id)
def test_environments_stepped_in_this_process_go_on_bit_for_bit_from_a_snapshot(env: EnvSpec) -> None:
    check_restores(short(env, "sync"))


@pytest.mark.parametrize("reward", [None, "simple_cartpole"])
def test_vector_environments_go_on_bit_for_bit_from_a_snapshot(reward: str | None) -> None:
    check_restores(short(EnvSpec(id="CartPole-v1", reward=reward), "vector"))


def test_environments_in_processes_go_on_bit_for_bit_from_a_snapshot() -> None:
    check_restores(short(EnvSpec(id="LunarLander-v3", kwargs={"enable_wind": True}), "subproc"))


def test_a_snapshot_of_restored_environments_is_the_snapshot() -> None:
    env = short(EnvSpec(id="Pendulum-v1"), "sync", n_envs=1)
    first, second = make_vec_env(env, seed=0), make_vec_env(env, seed=1)
    first.reset()
    trace(first, actions_for(first, 10, seed=0))
    state = saved(first)
    restore_envs(second, state)
    assert repr(saved(second)) == repr(state)


def test_environments_that_were_never_reset_are_restored_as_such() -> None:
    env = short(EnvSpec(id="CartPole-v1"), "sync")
    first, second = make_vec_env(env, seed=5), make_vec_env(env, seed=5)
    restore_envs(second, saved(first))
    second.seed(5)
    assert same_bits(first.reset(), second.reset())


def test_the_action_space_goes_on_drawing_where_it_was() -> None:
    env = short(EnvSpec(id="Pendulum-v1"), "sync")
    first, second = make_vec_env(env, seed=0), make_vec_env(env, seed=0)
    first.reset()
    first.action_space.seed(4)
    first.action_space.sample()
    state = saved(first)
    expected = first.action_space.sample()
    restore_envs(second, state)
    assert same_bits(second.action_space.sample(), expected)


def test_what_wrappers_of_vector_environments_accumulate_comes_back() -> None:
    def wrapped() -> VecEnv:
        return VecFrameStack(VecMonitor(VecNormalize(make_vec_env(env, seed=2), training=False)), n_stack=2)

    env = short(EnvSpec(id="Pendulum-v1"), "sync")
    original, fresh = wrapped(), wrapped()
    original.reset()
    actions = actions_for(original, 60, seed=0)
    trace(original, actions[:20])
    restore_envs(fresh, saved(original))
    assert_same(trace(fresh, actions[20:]), trace(original, actions[20:]))


def test_restoring_into_another_number_of_environments_is_refused() -> None:
    env = EnvSpec(id="CartPole-v1")
    first, second = make_vec_env(short(env, "sync", 2), seed=0), make_vec_env(short(env, "sync", 3), seed=0)
    first.reset()
    with pytest.raises(CheckpointError, match=r"holds 2 environments, `env.n_envs` is 3"):
        restore_envs(second, saved(first))


def test_restoring_under_other_wrappers_is_refused() -> None:
    env = short(EnvSpec(id="CartPole-v1"), "sync")
    first = make_vec_env(env, seed=0)
    with pytest.raises(CheckpointError, match="wrapped otherwise"):
        restore_envs(VecNormalize(make_vec_env(env, seed=0)), snapshot_envs(first))


class Forgetful(gym.Env[Any, Any]):
    """Draws from a generator that a reset does not seed and that replay does not know."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.own = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.own.uniform(-1, 1, 1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.own.uniform(-1, 1, 1), 0.0, False, False, {}


class Carrying(Forgetful):
    """Repeatable from its seed, but its own generator goes on over resets."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.own = np.random.default_rng(seed)
        return super().reset(seed=seed)


HERE = "tests.unit.envs.test_exact_state"


def test_a_replay_that_led_elsewhere_is_an_error_that_names_the_environment() -> None:
    recorder = Recorder(Forgetful())
    recorder.reset(seed=0)
    with pytest.raises(CheckpointError, match=r"'Forgetful' did not come back .* `env.state: rebuild`"):
        Recorder(Forgetful()).restore(recorder.snapshot())


@pytest.mark.parametrize(
    ("env", "way"),
    [
        (EnvSpec(id="CartPole-v1", n_envs=8), "snapshot"),
        (EnvSpec(id="CartPole-v1"), "replay"),
        (EnvSpec(id="LunarLander-v3"), "replay"),
        (EnvSpec(id="CartPole-v1", backend="envpool", n_envs=2), "rebuild"),
        (EnvSpec(id="BipedalWalker-v3"), "rebuild"),
        (EnvSpec(id=f"{HERE}:Carrying"), "rebuild"),
        (EnvSpec(id="CartPole-v1", state="rebuild"), "rebuild"),
        (EnvSpec(id="tests.envs_for_tests:MaskedEnv", kwargs={"actions": "multi_discrete"}), "replay"),
    ],
    ids=str,
)
def test_auto_state_is_what_a_trial_shows_to_be_exact(env: EnvSpec, way: str) -> None:
    assert resolve_env(env, seed=0).state == way


def test_an_environment_that_ignores_its_seed_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_env(EnvSpec(id=f"{HERE}:Forgetful"), seed=0).state == "rebuild"
    assert "neither repeated nor resumed exactly" in caplog.text


def test_replay_is_refused_where_it_is_not_exact() -> None:
    with pytest.raises(CheckpointError, match=r"`env.state: replay` is not exact for 'BipedalWalker-v3'"):
        resolve_env(EnvSpec(id="BipedalWalker-v3", state="replay"), seed=0)


def test_a_way_that_the_backend_does_not_have_is_refused() -> None:
    with pytest.raises(SpecError, match=r"must be auto, rebuild or replay with the backend 'sync', got 'snapshot'"):
        resolve_env(EnvSpec(id="CartPole-v1", state="snapshot"), seed=0)


def test_actions_are_recorded_as_they_were_when_given() -> None:
    env = make_env(EnvSpec(id="Pendulum-v1"), training=True)
    assert isinstance(env, Recorder)
    env.reset(seed=0)
    action = np.array([1.5], dtype=np.float32)
    env.step(action)
    action[0] = -1.0
    assert env.snapshot().actions.tolist() == [[1.5]]
