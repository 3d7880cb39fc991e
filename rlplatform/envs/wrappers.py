"""Our own wrappers around one environment."""

from __future__ import annotations

import time
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from rlplatform.envs.rewards import RewardFunction, batch_rewards

TRUE_REWARD = "true_reward"
TRUE_RETURN = "true_return"


class EpisodeMonitor(gym.Wrapper[Any, Any, Any, Any]):
    """Put ``{"r": return, "l": length, "t": seconds since made}`` into ``info["episode"]`` at an episode's end.

    The same as Stable-Baselines3's Monitor gives, without importing torch.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._started_at = time.time()
        self._return = 0.0
        self._length = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the totals."""
        self._return, self._length = 0.0, 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        if terminated or truncated:
            seconds = round(time.time() - self._started_at, 6)
            info["episode"] = {"r": round(self._return, 6), "l": self._length, "t": seconds}
        return obs, reward, terminated, truncated, info


class ShapedReward(gym.Wrapper[Any, Any, Any, Any]):
    """Replace the reward by a function's; the environment's own goes to ``info``.

    ``info["true_reward"]`` is this step's own reward; ``info["true_return"]``, at an episode's end, their sum.
    """

    def __init__(self, env: gym.Env[Any, Any], function: RewardFunction) -> None:
        super().__init__(env)
        self._function = function
        self._obs: Any = None
        self._true_return = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._obs = _batch(obs)
        self._true_return = 0.0
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and give the function's reward."""
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        batched_next_obs = _batch(next_obs)
        shaped = batch_rewards(self._function, self._obs, _batch(action), batched_next_obs, 1)
        self._obs = batched_next_obs
        self._true_return += float(reward)
        info[TRUE_REWARD] = float(reward)
        if terminated or truncated:
            info[TRUE_RETURN] = self._true_return
        return next_obs, float(shaped[0]), terminated, truncated, info


def _batch(value: Any) -> Any:
    # A copy: environments may hand out one array and change it in place.
    if isinstance(value, dict):
        return {key: _batch(part) for key, part in value.items()}
    return np.array(value)[None]
