"""Trying whether environments can be restored exactly, before a run relies on it."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.envs.recorder import same_bits
from rlplatform.envs.replay import restore_envs, snapshot_envs
from rlplatform.envs.sampling import sample_action
from rlplatform.errors import CheckpointError

_EPISODE_STEPS = (150, 60, 30)
"""Steps after each reset before the snapshot: state that is carried over resets shows only after some."""
_STEPS_AFTER = 100
_RESET_AFTER = 66


class VecEnvMaker(Protocol):
    """Makes fresh environments; called with a seed."""

    def __call__(self, *, seed: int) -> VecEnv:
        """Return environments that have not been reset."""


def is_exact(make: VecEnvMaker, seed: int) -> bool:
    """Return whether fresh environments, restored in mid episode, go on as the originals do, bit for bit.

    Compared are observations, rewards and ends of episodes over the next steps, an explicit reset, and some steps more.
    """
    with contextlib.closing(make(seed=seed)) as original, contextlib.closing(make(seed=seed + 1)) as fresh:
        original.action_space.seed(seed)
        for steps in _EPISODE_STEPS:
            original.reset()
            for _ in range(steps):
                original.step(_random_actions(original))
        try:
            restore_envs(fresh, snapshot_envs(original))
        except CheckpointError:
            return False
        return _agree(original, fresh)


def is_repeatable(make: VecEnvMaker, seed: int) -> bool:
    """Return whether two fresh environments with the same seed and actions give the same, bit for bit."""
    with contextlib.closing(make(seed=seed)) as one, contextlib.closing(make(seed=seed)) as other:
        one.action_space.seed(seed)
        return same_bits(one.reset(), other.reset()) and _agree(one, other)


def _agree(one: VecEnv, other: VecEnv) -> bool:
    """Step both with the same actions, with a reset in between, and compare everything that training sees."""
    for i in range(_STEPS_AFTER):
        actions = _random_actions(one)
        if not same_bits(_step(one, actions), _step(other, actions)):
            return False
        if i == _RESET_AFTER and not same_bits(one.reset(), other.reset()):
            return False
    return True


def _step(venv: VecEnv, actions: NDArray[Any]) -> tuple[Any, ...]:
    obs, rewards, dones, infos = venv.step(actions)
    ends = [info for done, info in zip(dones, infos, strict=True) if done]
    last = tuple((info["terminal_observation"], info["episode"]["r"], info["episode"]["l"]) for info in ends)
    return obs, rewards, dones, last


def _random_actions(venv: VecEnv) -> NDArray[Any]:
    masks = venv.env_method("action_masks") if venv.has_attr("action_masks") else [None] * venv.num_envs
    return np.stack([sample_action(venv.action_space, mask) for mask in masks])
