"""Our own wrappers around one environment."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from rlplatform.envs.rewards import RewardFunction, batch_rewards

TRUE_REWARD = "true_reward"
TRUE_RETURN = "true_return"


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
