"""Groups whose members start in the same state: every member's environment is reset with the group's seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

_CHECKED_STEPS = 30


def reset_with_seeds(env: VecEnv, seeds: Sequence[int]) -> VecEnvObs:
    """Reset every environment with a seed of its own; SB3's `seed` would give each another one.

    Args:
        env: With any wrappers around it.
        seeds: One for each environment.
    """
    env.unwrapped._seeds = [int(seed) for seed in seeds]
    return env.reset()


def starts_are_equal(env: VecEnv, seed: int) -> bool:
    """Return whether environments reset with one seed are in the same state, by what can be seen of it.

    Compared are the first observations of all environments, then what the same actions lead to, and both again after
    another reset: an environment may give the same first observation and go on otherwise (BipedalWalker keeps part of
    its world over resets). The environments are left somewhere: reset them.
    """
    base = env.unwrapped
    base.action_space.seed(seed)
    actions = [base.action_space.sample() for _ in range(_CHECKED_STEPS)]
    first: list[Any] = []
    for attempt in range(2):
        seen = [reset_with_seeds(base, [seed] * base.num_envs)]
        for action in actions:
            obs, rewards, dones, _ = base.step(np.stack([action] * base.num_envs))
            seen += [obs, rewards, dones]
        if not all(_rows_are_equal(part) for part in seen):
            return False
        if attempt == 0:
            first = [_copy(part) for part in seen]
        elif not all(_same(one, other) for one, other in zip(first, seen, strict=True)):
            return False
    return True


def n_checked_steps(env: VecEnv) -> int:
    """Return the environment steps that :func:`starts_are_equal` takes at most."""
    return 2 * _CHECKED_STEPS * env.num_envs


def _rows_are_equal(obs: Any) -> bool:
    if isinstance(obs, dict):
        return all(map(_rows_are_equal, obs.values()))
    return bool((np.asarray(obs) == np.asarray(obs)[:1]).all())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_same(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))


def _copy(obs: Any) -> Any:
    return {key: part.copy() for key, part in obs.items()} if isinstance(obs, dict) else np.array(obs)
