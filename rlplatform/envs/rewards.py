"""Reward functions to train on instead of the environment's own.

A reward function is ``f(obs, action, next_obs) -> reward``, vectorised over a batch: arrays of shape [n, …] in, one of
shape [n] out. ``next_obs`` is the observation the action led to, also where it ended the episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlplatform.envs.catalog import find_reward, load_target
from rlplatform.errors import EnvError

RewardFunction = Callable[[Any, Any, Any], Any]

_POLE_FALLS_AT_RAD = 0.2095


def optimized_cartpole(obs: NDArray[Any], action: NDArray[Any], next_obs: NDArray[Any]) -> NDArray[np.float64]:
    """Reward an upright pole near the middle of the track, in [0.1, 6].

    Args:
        obs: Not used.
        action: Not used.
        next_obs: float, [n, 4]: cart position in m, its velocity, pole angle in rad, its velocity.

    Source: `optimized_cartpole` of sb3-grpo (kechirojp, 2025):
        clip(1.5 + 3 exp(-8 |angle|) + exp(-1.5 position²) - 2 max(|position| - 2, 0), 0.1, 6).
    """
    position, angle = np.abs(next_obs[:, 0], dtype=np.float64), np.abs(next_obs[:, 2], dtype=np.float64)
    off_track = np.maximum(position - 2.0, 0.0)
    reward: NDArray[np.float64] = 1.5 + 3.0 * np.exp(-8.0 * angle) + np.exp(-1.5 * position**2) - 2.0 * off_track
    return np.clip(reward, 0.1, 6.0)


def simple_cartpole(obs: NDArray[Any], action: NDArray[Any], next_obs: NDArray[Any]) -> NDArray[np.float64]:
    """Reward a small pole angle, falling linearly from 1 to 0.1 where the pole falls.

    Args:
        obs: Not used.
        action: Not used.
        next_obs: float, [n, 4], as CartPole gives it.

    Source: `simple_cartpole` of sb3-grpo (kechirojp, 2025): clip(1 - |angle| / 0.2095, 0.1, 1).
    """
    angle: NDArray[np.float64] = np.abs(next_obs[:, 2], dtype=np.float64)
    return np.clip(1.0 - angle / _POLE_FALLS_AT_RAD, 0.1, 1.0)


def load_reward(name: str) -> RewardFunction:
    """Return the reward function called `name`, or `module:function`.

    Raises:
        UnknownNameError: If no reward function has that name.
        EnvError: If it cannot be imported or is not callable.
    """
    function: Any = load_target(find_reward(name).target)
    if not callable(function):
        raise EnvError(f"`env.reward` must name a function, got {name!r}, which is a {type(function).__name__}.")
    loaded: RewardFunction = function
    return loaded


def batch_rewards(function: RewardFunction, obs: Any, action: Any, next_obs: Any, n: int) -> NDArray[np.float64]:
    """Return the rewards of one batch as float64 [n].

    Raises:
        EnvError: If the function takes other arguments, or does not give n finite numbers.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        rewards = np.asarray(function(obs, action, next_obs), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EnvError(
            f"The reward function {name!r} must take (obs, action, next_obs), arrays [n, …], and give numbers [n]; "
            f"it raised {type(error).__name__}: {error}. Mend it."
        ) from error
    if rewards.shape != (n,) or not np.isfinite(rewards).all():
        raise EnvError(
            f"The reward function {name!r} must give finite numbers of shape ({n},) for a batch of {n}, "
            f"got shape {rewards.shape}: {np.array2string(rewards, threshold=8)}. "
            "Make it work on batches: arrays [n, …] in, [n] out."
        )
    return rewards
