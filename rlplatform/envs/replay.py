"""Exact state of a whole vector of environments: copied where it can be, replayed where it cannot."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from rlplatform.envs.recorder import Recording, RngState, same_bits
from rlplatform.errors import CheckpointError

__all__ = ["restore_envs", "same_bits", "snapshot_envs"]


@runtime_checkable
class Copyable(Protocol):
    """A vector environment that is restored by copying, not by replay."""

    def snapshot(self) -> object:
        """Return a picklable copy of all its state."""

    def restore(self, state: Any) -> VecEnvObs:
        """Take that state over and return the observations, [n_envs, …]."""


@dataclass(frozen=True)
class EnvsState:
    """The state of a vector environment with everything wrapped around it."""

    inside: object
    """One :class:`Recording` for each environment, or what a :class:`Copyable` gave."""
    wrappers: tuple[dict[str, Any], ...]
    """What each VecEnvWrapper accumulates, outermost first."""
    action_rng: RngState


_ACCUMULATORS: dict[type[VecEnvWrapper], tuple[str, ...]] = {
    # Its running means and variances are saved with the policy, which needs them without any environment.
    VecNormalize: ("returns", "old_obs", "old_reward"),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecFrameStack: ("stacked_obs",),
}


def snapshot_envs(venv: VecEnv) -> object:
    """Return a picklable copy of the state of all environments and of the accumulators of the wrappers around them."""
    base, around = _unwrap(venv)
    return EnvsState(
        inside=base.snapshot() if isinstance(base, Copyable) else tuple(base.env_method("snapshot")),
        wrappers=tuple(copy.deepcopy(_accumulated(wrapper)) for wrapper in around),
        action_rng=base.action_space.np_random.bit_generator.state,
    )


def restore_envs(venv: VecEnv, state: object) -> VecEnvObs:
    """Bring a fresh vector environment, made from the same spec, to a saved state.

    Args:
        venv: As :func:`rlplatform.envs.make.make_vec_env` gives it, with the same wrappers as when it was saved.
        state: What :func:`snapshot_envs` gave.

    Returns:
        The current observations of the environments themselves, [n_envs, …], as no wrapper has touched them.

    Raises:
        CheckpointError: If the environments are not, bit for bit, where they were.
    """
    base, around = _unwrap(venv)
    if not isinstance(state, EnvsState) or len(state.wrappers) != len(around):
        raise CheckpointError(
            "The checkpoint's environments were wrapped otherwise. Resume with the spec it was made with."
        )
    if isinstance(base, Copyable):
        obs = base.restore(state.inside)
    else:
        obs = _replay(base, cast("tuple[Recording, ...]", state.inside))
    for wrapper, saved in zip(around, state.wrappers, strict=True):
        vars(wrapper).update(copy.deepcopy(saved))
    base.action_space.np_random.bit_generator.state = state.action_rng
    return obs


def _replay(base: VecEnv, recordings: tuple[Recording, ...]) -> VecEnvObs:
    if len(recordings) != base.num_envs:
        raise CheckpointError(
            f"The checkpoint holds {len(recordings)} environments, `env.n_envs` is {base.num_envs}. "
            f"Set it to {len(recordings)}."
        )
    rows = [base.env_method("restore", recording, indices=i)[0] for i, recording in enumerate(recordings)]
    base._reset_seeds()  # What a seed() before this left for the next reset is void.
    if isinstance(base, DummyVecEnv):
        for i, row in enumerate(rows):
            base._save_obs(i, row)
        return base._obs_from_buf()
    return stack_observations(rows, base.observation_space)


def stack_observations(rows: list[Any], space: spaces.Space[Any]) -> VecEnvObs:
    """Return single observations as one batch [n, …]; Dict observations part by part."""
    if isinstance(space, spaces.Dict):
        return {key: np.stack([row[key] for row in rows]) for key in space.spaces}
    return np.stack(rows)


def _unwrap(venv: VecEnv) -> tuple[VecEnv, list[VecEnvWrapper]]:
    around = []
    while isinstance(venv, VecEnvWrapper):
        around.append(venv)
        venv = venv.venv
    return venv, around


def _accumulated(wrapper: VecEnvWrapper) -> dict[str, Any]:
    names = next((names for kind, names in _ACCUMULATORS.items() if isinstance(wrapper, kind)), ())
    return {name: vars(wrapper)[name] for name in names}
