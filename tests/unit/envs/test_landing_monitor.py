from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.box2d.lunar_lander import heuristic

from rlplatform.envs.make import make_env
from rlplatform.errors import EnvError
from rlplatform.specs.run import EnvSpec

MONITOR = ("landing_monitor",)
Policy = Callable[[gym.Env[Any, Any], Any], Any]


def play(env: gym.Env[Any, Any], policy: Policy, seed: int) -> list[tuple[Any, float, dict[str, Any]]]:
    """Play one episode and return observation, reward and info of each step."""
    obs, _ = env.reset(seed=seed)
    steps = []
    while True:
        obs, reward, terminated, truncated, info = env.step(policy(env, obs))
        steps.append((obs, float(reward), info))
        if terminated or truncated:
            return steps


def pilot(env: gym.Env[Any, Any], obs: Any) -> Any:
    return heuristic(env.unwrapped, obs)  # type: ignore[no-untyped-call]


def at_random(env: gym.Env[Any, Any], obs: Any) -> Any:
    return env.action_space.sample()


def lander(max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    spec = EnvSpec(id="LunarLander-v3", kwargs=kwargs, wrappers=MONITOR, max_episode_steps=max_episode_steps)
    env = make_env(spec, training=False)
    env.action_space.seed(0)
    return env


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("policy", [pilot, at_random])
def test_the_components_sum_to_the_reward(policy: Policy, continuous: bool) -> None:
    env = lander(continuous=continuous, enable_wind=True)
    for seed in range(3):
        for _, reward, info in play(env, policy, seed):
            assert sum(info["reward_components"].values()) == pytest.approx(reward, abs=1e-9)


def test_the_description_is_the_observation_in_words() -> None:
    for obs, _, info in play(lander(), pilot, seed=1):
        told = info["lunar_lander"]
        row = [*told["position"], *told["velocity"], told["angle"], told["angular_velocity"], *told["leg_contact"]]
        np.testing.assert_array_equal(np.array(row, dtype=np.float32), obs)
        assert told["distance_from_target"] == pytest.approx(float(np.hypot(obs[0], obs[1])), rel=1e-5)


def test_a_landing_is_successful_with_its_statistics() -> None:
    steps = play(lander(), pilot, seed=1)
    *before, (_, reward, last) = steps
    assert {info["lunar_lander"]["landing_outcome"] for _, _, info in before} == {None}
    assert reward == last["reward_components"]["outcome"] == 100.0
    assert last["lunar_lander"]["landing_outcome"] == "successful"
    assert last["is_success"] is True
    stats = last["lunar_lander"]["landing_stats"]
    first_contact = next(i for i, (obs, _, _) in enumerate(steps, 1) if obs[6] or obs[7])
    assert (stats["steps"], stats["first_contact_step"]) == (len(steps), first_contact)
    assert stats["first_contact_speed"] == pytest.approx(float(np.hypot(*steps[first_contact - 1][0][2:4])), rel=1e-5)
    assert stats["on_pad"] is True
    fuel = [info["reward_components"]["main_engine"] for _, _, info in steps[:-1]]
    assert -sum(fuel) / 0.3 == pytest.approx(stats["main_engine"], abs=1.001)
    assert any(info["lunar_lander"]["is_landing"] for _, _, info in before)


def test_a_fall_is_a_crash() -> None:
    *_, (_, reward, last) = play(lander(), lambda env, obs: 0, seed=0)
    assert reward == -100.0
    assert last["lunar_lander"]["landing_outcome"] == "crashed"
    assert last["is_success"] is False


def test_running_out_of_time_in_the_air_is_a_timeout() -> None:
    *_, (_, _, last) = play(lander(max_episode_steps=20), pilot, seed=0)
    assert last["lunar_lander"]["landing_outcome"] == "timeout"


def test_standing_still_on_the_pad_when_time_runs_out_is_successful() -> None:
    landed = len(play(lander(), pilot, seed=1))
    # A few steps before the engine finds the lander at rest, it already stands.
    *_, (_, _, last) = play(lander(max_episode_steps=landed - 5), pilot, seed=1)
    assert last["lunar_lander"]["landing_outcome"] == "successful"


def test_anything_but_a_lunar_lander_is_refused() -> None:
    with pytest.raises(EnvError, match="'landing_monitor' needs a LunarLander, got CartPoleEnv"):
        make_env(EnvSpec(id="CartPole-v1", wrappers=MONITOR), training=False)
