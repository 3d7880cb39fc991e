"""The environments that other tests rest on keep Gymnasium's contract and replay exactly."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests.envs_for_tests import ACTIONS, OBSERVATIONS, IdentityEnv, MaskedEnv, TinyEnv

KINDS = [(observations, actions) for observations in OBSERVATIONS for actions in ACTIONS]


def trajectory(env: gym.Env[Any, Any], actions: list[Any]) -> list[Any]:
    """Return what an episode shows and pays for given actions, from one seed."""
    shown = [env.reset(seed=5)[0]]
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        assert env.observation_space.contains(observation)
        assert -1.0 <= float(reward) <= 1.0
        shown += [observation, reward]
        if terminated or truncated:
            break
    return shown


@pytest.mark.parametrize(("observations", "actions"), KINDS)
def test_the_same_seed_and_actions_give_the_same_episode(observations: str, actions: str) -> None:
    env = TinyEnv(observations=observations, actions=actions, end_probability=0.0)
    chosen = [env.action_space.sample() for _ in range(env.length)]
    first = trajectory(env, chosen)
    env.reset()
    np.testing.assert_equal(trajectory(env, chosen), first)
    assert len(first) == 2 * env.length + 1


def test_actions_change_what_comes_next() -> None:
    env = TinyEnv(end_probability=0.0)
    low, high = trajectory(env, [0] * 5), trajectory(env, [2] * 5)
    assert not np.allclose(low[-2], high[-2])


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete", "multi_binary"])
def test_masks_forbid_something_and_are_enforced(actions: str) -> None:
    env = MaskedEnv(actions=actions)
    env.reset(seed=1)
    mask = env.action_masks()
    assert mask.any()
    assert not mask.all()
    refused = [action for action in (env.action_space.sample() for _ in range(50)) if _is_refused(env, action)]
    assert refused
    with pytest.raises(ValueError, match="is masked"):
        env.step(refused[0])


def _is_refused(env: MaskedEnv, action: Any) -> bool:
    env.reset(seed=1)
    try:
        env.step(action)
    except ValueError:
        env.reset(seed=1)
        return True
    env.reset(seed=1)
    return False


def test_naming_the_symbol_pays_one() -> None:
    env = IdentityEnv(length=3)
    symbol, _ = env.reset(seed=0)
    for step in range(3):
        symbol, reward, terminated, truncated, _ = env.step(symbol)
        assert (reward, terminated, truncated) == (1.0, False, step == 2)
