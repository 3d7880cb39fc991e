"""Exact state of environments: copied where it can be, replayed where it cannot.

Pickling a Gymnasium environment is a trap: many (EzPickle: Box2D, MuJoCo) come back as just constructed. So a
:class:`Recorder` around each environment remembers where its random generator stood before the last reset and every action
since; a fresh instance that resets from there and takes the same actions is in the same state, which is checked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat, cast, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from rlplatform.errors import CheckpointError

RngState = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """What brings one environment back to where it was."""

    env: str
    """The environment's name, for messages."""
    seed: int | None
    """What the last reset was given. None: it went on from `rng_at_reset`."""
    options: dict[str, Any] | None
    rng_at_reset: RngState | None
    """The random generator before the last reset. None: never reset, or reset with a seed."""
    actions: Any
    """The actions since, one array [n, …] where they are arrays of one shape and dtype, else a tuple."""
    observation: Any
    """What the last of them gave. None: never reset."""
    rng: RngState | None
    """The random generator now."""
    action_rng: RngState
    """The action space's random generator now."""


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Remember what an environment's state follows from; goes outermost, so that the wrappers' state is replayed too."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._options: dict[str, Any] | None = None
        self._rng_at_reset: RngState | None = None
        self._actions: list[Any] = []
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and start a new record."""
        self._seed, self._options = seed, options
        # Reading `np_random` makes the generator if there is none yet: an unseeded first reset can be replayed as well.
        self._rng_at_reset = _rng_state(self) if seed is None else None
        self._actions = []
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and remember the action."""
        # Vector environments hand out views of one array, which the next step overwrites.
        self._actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        result = self.env.step(action)
        self._observation = result[0]
        return result

    def snapshot(self) -> Recording:
        """Return what brings a fresh instance to this state; pickles small."""
        return Recording(
            env=_name(self),
            seed=self._seed,
            options=self._options,
            rng_at_reset=self._rng_at_reset,
            actions=_pack(self._actions),
            observation=copy.deepcopy(self._observation),
            rng=_rng_state(self),
            action_rng=self.action_space.np_random.bit_generator.state,
        )

    def restore(self, recording: Recording) -> Any:
        """Bring this environment to the recorded state and return its observation.

        Raises:
            CheckpointError: If the observation or the random generator is not, bit for bit, what it was.
        """
        if recording.observation is not None:
            if recording.rng_at_reset is not None:
                self.unwrapped.np_random.bit_generator.state = recording.rng_at_reset
            self.reset(seed=recording.seed, options=recording.options)
            for action in recording.actions:
                self.step(action)
            same_rng = repr(_rng_state(self)) == repr(recording.rng)  # Some states hold arrays, which `==` does not compare.
            if not same_rng or not same_bits(self._observation, recording.observation):
                raise CheckpointError(
                    f"The environment {_name(self)!r} did not come back as it was: {len(recording.actions)} replayed actions led "
                    "elsewhere. It keeps state across resets or draws from a generator of its own. Start a new run with "
                    "`env.state: rebuild`."
                )
        self.action_space.np_random.bit_generator.state = recording.action_rng
        return self._observation


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
        wrappers=tuple(copy.deepcopy({name: vars(wrapper)[name] for name in _accumulators(wrapper)}) for wrapper in around),
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
        raise CheckpointError("The checkpoint's environments were wrapped otherwise. Resume with the spec it was made with.")
    obs = base.restore(state.inside) if isinstance(base, Copyable) else _replay(base, cast("tuple[Recording, ...]", state.inside))
    for wrapper, saved in zip(around, state.wrappers, strict=True):
        vars(wrapper).update(copy.deepcopy(saved))
    base.action_space.np_random.bit_generator.state = state.action_rng
    return obs


def same_bits(one: Any, other: Any) -> bool:
    """Return whether two observations are equal bit for bit, NaNs and signed zeros included."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same_bits, one, other))
    left, right = np.asarray(one), np.asarray(other)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def _replay(base: VecEnv, recordings: tuple[Recording, ...]) -> VecEnvObs:
    if len(recordings) != base.num_envs:
        raise CheckpointError(
            f"The checkpoint holds {len(recordings)} environments, `env.n_envs` is {base.num_envs}. Set it to {len(recordings)}."
        )
    rows = [base.env_method("restore", recording, indices=i)[0] for i, recording in enumerate(recordings)]
    base._reset_seeds()  # What a seed() before this left for the next reset is void.
    if isinstance(base, DummyVecEnv):
        for i, row in enumerate(rows):
            base._save_obs(i, row)
        return base._obs_from_buf()
    return stack_observations(rows, base.observation_space)


def stack_observations(rows: list[Any], space: spaces.Space[Any]) -> VecEnvObs:
    """Return single observations as one batch [n, …]; Dict and Tuple observations are batched part by part."""
    if isinstance(space, spaces.Dict):
        return {key: np.stack([row[key] for row in rows]) for key in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(np.stack([row[i] for row in rows]) for i in range(len(space.spaces)))
    return np.stack(rows)


def _unwrap(venv: VecEnv) -> tuple[VecEnv, list[VecEnvWrapper]]:
    around = []
    while isinstance(venv, VecEnvWrapper):
        around.append(venv)
        venv = venv.venv
    return venv, around


def _accumulators(wrapper: VecEnvWrapper) -> tuple[str, ...]:
    return next((names for kind, names in _ACCUMULATORS.items() if isinstance(wrapper, kind)), ())


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _rng_state(env: gym.Env[Any, Any]) -> RngState | None:
    rng = env.unwrapped.np_random
    # An environment may have put something else there; the probe of `resolve_env` then finds that replay is not exact.
    return cast(RngState, rng.bit_generator.state) if isinstance(rng, np.random.Generator) else None


def _pack(actions: list[Any]) -> Any:
    first = actions[0] if actions else None
    uniform: Callable[[Any], bool] = (
        lambda action: type(action) is type(first) and action.dtype == first.dtype and action.shape == first.shape
    )
    if isinstance(first, (np.ndarray, np.generic)) and all(map(uniform, actions)):
        return np.stack(actions)
    return tuple(actions)
