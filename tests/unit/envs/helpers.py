"""Running two vectors of environments side by side."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.envs.recorder import same_bits
from rlplatform.envs.replay import snapshot_envs

SAVED_INFO = ("terminal_observation", "TimeLimit.truncated")


def actions_for(venv: VecEnv, n_steps: int, seed: int) -> list[NDArray[Any]]:
    """Return random actions, [n_envs, …] for each step, without touching the environments' generators."""
    space = pickle.loads(pickle.dumps(venv.action_space))
    space.seed(seed)
    return [np.stack([space.sample() for _ in range(venv.num_envs)]) for _ in range(n_steps)]


def ends_of(dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what training reads from the infos of finished episodes; the seconds are left out."""
    return [
        (*(info[key] for key in SAVED_INFO), info["episode"]["r"], info["episode"]["l"])
        for done, info in zip(dones, infos, strict=True)
        if done
    ]


def trace(venv: VecEnv, actions: list[NDArray[Any]]) -> list[tuple[Any, ...]]:
    """Step and return observations, rewards, dones and ends of episodes."""
    steps = []
    for action in actions:
        obs, rewards, dones, infos = venv.step(action)
        steps.append((obs, rewards, dones, *ends_of(dones, infos)))
    return steps


def assert_same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> None:
    """Assert that two traces are equal bit for bit."""
    assert len(one) == len(other)
    for i, (left, right) in enumerate(zip(one, other, strict=True)):
        assert same_bits(left, right), f"step {i}: {left} != {right}"


def saved(venv: VecEnv) -> Any:
    """Return the state as it comes back from a file."""
    return pickle.loads(pickle.dumps(snapshot_envs(venv)))
