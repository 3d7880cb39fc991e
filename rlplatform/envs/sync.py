"""The `sync` backend: environments of this process, stepped one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv


def make_sync_vec_env(env_fns: Sequence[Callable[[], gym.Env[Any, Any]]]) -> DummyVecEnv:
    """Return Stable-Baselines3's DummyVecEnv over these environments."""
    return DummyVecEnv(list(env_fns))
