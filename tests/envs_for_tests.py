"""Tiny environments that cover every action and observation space, seeded only by `np_random`, so that replay is exact.

All are reachable by id, as `tests.envs_for_tests:TinyEnv`, with keyword arguments that a YAML file can hold.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-2.0, 2.0, (2,), np.float32),
}
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1.0, 1.0, (4,), np.float32),
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "multi_binary": spaces.MultiBinary(4),
    "dict": spaces.Dict({"position": spaces.Box(-1.0, 1.0, (3,), np.float32), "mode": spaces.Discrete(3)}),
    "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
}


def observe(space: spaces.Space[Any], latent: np.ndarray) -> Any:
    """Return the observation of a hidden state.

    Args:
        space: One of `OBSERVATIONS`, or a part of one.
        latent: float ``[4]`` in [-1, 1].
    """
    if isinstance(space, spaces.Dict):
        return {key: observe(part, latent) for key, part in space.spaces.items()}
    unit = (latent + 1.0) / 2.0
    if isinstance(space, spaces.Discrete):
        return np.int64(min(int(unit[0] * space.n), space.n - 1))
    if isinstance(space, spaces.MultiDiscrete):
        return np.minimum(unit[: len(space.nvec)] * space.nvec, space.nvec - 1).astype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return (latent[: space.n] > 0).astype(np.int8)
    assert isinstance(space, spaces.Box)
    if space.dtype == np.uint8:
        return np.resize(np.repeat(unit * 255, 9), space.shape).astype(np.uint8)
    return np.resize(latent, space.shape).astype(np.float32)


def mean_action(space: spaces.Space[Any], action: Any) -> float:
    """Return the mean over the dimensions of an action, each scaled to [-1, 1]."""
    if isinstance(space, spaces.Box):
        return float(np.mean(2 * (np.asarray(action) - space.low) / (space.high - space.low) - 1))
    if isinstance(space, spaces.Discrete):
        return 2.0 * float(action) / (int(space.n) - 1) - 1.0
    if isinstance(space, spaces.MultiDiscrete):
        return float(np.mean(2.0 * np.asarray(action) / (space.nvec - 1) - 1.0))
    return float(np.mean(2.0 * np.asarray(action) - 1.0))


class TinyEnv(gym.Env[Any, Any]):
    """A hidden state drifts at random and by the action; the reward is highest when the action's mean follows it.

    Args:
        observations: A key of `OBSERVATIONS`.
        actions: A key of `ACTIONS`.
        length: Steps before truncation.
        end_probability: Chance of termination at each step.
    """

    metadata = {"render_modes": []}

    def __init__(
        self, observations: str = "box", actions: str = "discrete", length: int = 10, end_probability: float = 0.05
    ) -> None:
        self.observation_space = copy.deepcopy(OBSERVATIONS[observations])
        self.action_space = copy.deepcopy(ACTIONS[actions])
        self.length = length
        self.end_probability = end_probability
        self.elapsed = 0
        self.latent = np.zeros(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.elapsed = 0
        self.latent = self.np_random.uniform(-1.0, 1.0, 4)
        return observe(self.observation_space, self.latent), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        push = mean_action(self.action_space, action)
        reward = 1.0 - abs(push - float(self.latent[0]))
        self.elapsed += 1
        drift = 0.2 * self.np_random.normal(size=4) + 0.1 * push
        self.latent = np.clip(self.latent + drift, -1.0, 1.0)
        terminated = bool(self.np_random.random() < self.end_probability)
        truncated = self.elapsed >= self.length and not terminated
        return observe(self.observation_space, self.latent), reward, terminated, truncated, {}


class MaskedEnv(TinyEnv):
    """A TinyEnv in which some actions are forbidden at each step, and taking one is an error."""

    def action_masks(self) -> np.ndarray:
        """Return which actions are allowed now: bool, all choices of all dimensions one after another."""
        allowed = []
        for dimension, choices in enumerate(self._choices()):
            mask = np.ones(choices, dtype=bool)
            mask[int(abs(self.latent[dimension]) * 997) % choices] = False
            allowed.append(mask)
        return np.concatenate(allowed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        begin = 0
        masks = self.action_masks()
        for choice, choices in zip(np.atleast_1d(action), self._choices(), strict=True):
            if not masks[begin + int(choice)]:
                raise ValueError(f"the action {action!r} is masked: {masks}")
            begin += choices
        return super().step(action)

    def _choices(self) -> list[int]:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return [int(space.n)]
        if isinstance(space, spaces.MultiDiscrete):
            return [int(n) for n in space.nvec]
        assert isinstance(space, spaces.MultiBinary)
        return [2] * int(np.prod(space.shape))


class IdentityEnv(gym.Env[np.int64, np.int64]):
    """One of n symbols is shown; naming it gives a reward of 1. Learned in about a thousand steps.

    Args:
        n: Symbols.
        length: Steps of an episode.
    """

    metadata = {"render_modes": []}

    def __init__(self, n: int = 4, length: int = 20) -> None:
        self.observation_space = spaces.Discrete(n)
        self.action_space = spaces.Discrete(n)
        self.n = n
        self.length = length
        self.elapsed = 0
        self.symbol = np.int64(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        super().reset(seed=seed)
        self.elapsed = 0
        self.symbol = np.int64(self.np_random.integers(self.n))
        return self.symbol, {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.symbol)
        self.elapsed += 1
        self.symbol = np.int64(self.np_random.integers(self.n))
        return self.symbol, reward, False, self.elapsed >= self.length, {}
