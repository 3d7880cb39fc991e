"""What one environment's state follows from, and how a fresh instance gets there.

Pickling a Gymnasium environment is a trap: many (EzPickle: Box2D, MuJoCo) come back as just constructed. So a
:class:`Recorder` around each environment remembers where its random generator stood before the last reset and every
action since; a fresh instance that resets from there and takes the same actions is in the same state, which is checked.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from rlplatform.errors import CheckpointError

RngState = Mapping[str, Any]


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
    """Remember what an environment's state follows from; goes outermost, so that wrappers are replayed too."""

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
            same_rng = repr(_rng_state(self)) == repr(
                recording.rng
            )  # Some states hold arrays, which `==` does not compare.
            if not same_rng or not same_bits(self._observation, recording.observation):
                raise CheckpointError(
                    f"The environment {_name(self)!r} did not come back as it was: {len(recording.actions)} replayed "
                    "actions led elsewhere. It keeps state across resets, or draws from a generator of its own. "
                    "Start a new run with `env.state: rebuild`."
                )
        self.action_space.np_random.bit_generator.state = recording.action_rng
        return self._observation


def same_bits(one: Any, other: Any) -> bool:
    """Return whether two observations are equal bit for bit, NaNs and signed zeros included."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same_bits(one[key], other[key]) for key in one)
        )
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same_bits, one, other))
    left, right = np.asarray(one), np.asarray(other)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _rng_state(env: gym.Env[Any, Any]) -> RngState | None:
    rng = env.unwrapped.np_random
    # An environment may have put something else there; the probe of `resolve_env` then finds that replay is not exact.
    return rng.bit_generator.state if isinstance(rng, np.random.Generator) else None


def _pack(actions: list[Any]) -> Any:
    kinds = {(type(action), getattr(action, "dtype", None), getattr(action, "shape", None)) for action in actions}
    return np.stack(actions) if len(kinds) == 1 and isinstance(actions[0], (np.ndarray, np.generic)) else tuple(actions)
