"""Trying whether environments can be restored exactly, before a run relies on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.envs.recorder import same_bits
from rlplatform.envs.replay import restore_envs, snapshot_envs
from rlplatform.errors import CheckpointError

_EPISODE_STEPS = (150, 60, 30)
"""Steps after each reset before the snapshot: state that is carried over resets shows only after some."""
_STEPS_AFTER = 100


class VecEnvMaker(Protocol):
    """Makes fresh environments; called with a seed."""

    def __call__(self, *, seed: int) -> VecEnv:
        """Return environments that have not been reset."""


def is_exact(make: VecEnvMaker, seed: int) -> bool:
    """Return whether fresh environments, restored in mid episode, go on as the originals do, bit for bit.

    Compared are observations, rewards and ends of episodes over the next steps, an explicit reset, and some steps more.
    """
    actions = np.random.default_rng(seed)
    with _Opened(make, seed) as original:
        _run(original, _actions(original, actions), _EPISODE_STEPS)
        state = snapshot_envs(original)
        rest = [action for action, _ in zip(_actions(original, actions), range(_STEPS_AFTER), strict=False)]
        expected = list(_trace(original, rest))
    with _Opened(make, seed + 1) as fresh:
        try:
            restore_envs(fresh, state)
        except CheckpointError:
            return False
        return all(same_bits(one, other) for one, other in zip(expected, _trace(fresh, rest), strict=True))


def is_repeatable(make: VecEnvMaker, seed: int) -> bool:
    """Return whether two fresh environments with the same seed and actions give the same, bit for bit."""
    with _Opened(make, seed) as one, _Opened(make, seed) as other:
        rest = [
            action for action, _ in zip(_actions(one, np.random.default_rng(seed)), range(_STEPS_AFTER), strict=False)
        ]
        start, other_start = one.reset(), other.reset()
        if not same_bits(start, other_start):
            return False
        return all(same_bits(a, b) for a, b in zip(_trace(one, rest), _trace(other, rest), strict=True))


class _Opened:
    def __init__(self, make: VecEnvMaker, seed: int) -> None:
        self.venv = make(seed=seed)

    def __enter__(self) -> VecEnv:
        return self.venv

    def __exit__(self, *_: object) -> None:
        self.venv.close()


def _run(venv: VecEnv, actions: Iterator[NDArray[Any]], episode_steps: tuple[int, ...]) -> None:
    for steps in episode_steps:
        venv.reset()
        for _ in range(steps):
            venv.step(next(actions))


def _trace(venv: VecEnv, actions: list[NDArray[Any]]) -> Iterator[Any]:
    """Yield everything that training sees: two thirds of the steps, a reset, the rest."""
    for i, action in enumerate(actions):
        obs, rewards, dones, infos = venv.step(action)
        yield (obs, rewards, dones)
        for done, info in zip(dones, infos, strict=True):
            if done:
                yield (info["terminal_observation"], info["episode"]["r"], info["episode"]["l"])
        if i == 2 * len(actions) // 3:
            yield venv.reset()


def _actions(venv: VecEnv, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
    space = venv.action_space
    space.seed(int(rng.integers(2**31)))
    while True:
        yield np.stack([space.sample() for _ in range(venv.num_envs)])
