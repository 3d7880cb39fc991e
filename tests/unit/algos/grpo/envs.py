"""Environments of which GRPO's options show something."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class CounterEnv(gym.Env[Any, Any]):
    """The state is how often the action 1 was taken; an episode lasts `length` steps and pays for its actions.

    Args:
        length: Steps of an episode.
        pays: Reward of action 1; action 0 gives nothing.
        random_start: Start at a random number.
    """

    def __init__(self, length: int = 5, pays: float = 1.0, random_start: bool = False) -> None:
        self.observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length, self.pays, self.random_start = length, pays, random_start
        self.count, self.elapsed = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.elapsed = float(self.np_random.integers(9)) if self.random_start else 0.0, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += float(action)
        self.elapsed += 1
        return self._observe(), self.pays * float(action), self.elapsed >= self.length, False, {}

    def _observe(self) -> Any:
        return np.array([self.count, self.elapsed], np.float32)


class ForgetfulEnv(CounterEnv):
    """A copy starts afresh, as EzPickle's environments do."""

    def __deepcopy__(self, memo: dict[int, Any]) -> ForgetfulEnv:
        return ForgetfulEnv(self.length)


class RememberingEnv(CounterEnv):
    """Starts look alike, but what actions do depends on how often it was reset."""

    resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.resets += 1
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward + 0.1 * self.resets, terminated, truncated, info
