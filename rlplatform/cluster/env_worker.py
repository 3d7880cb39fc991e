"""EnvWorker: several environments inside one Ray actor. Without torch and SB3: it starts fast and stays small.

Its driver calls `listen` and `serve` through Ray, once; everything else comes over the line that they open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Listener
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from gymnasium import spaces
from numpy.typing import NDArray

from rlplatform.cluster.env_line import Address, listen, serve
from rlplatform.cluster.session import remote

TRUNCATED_KEY = "TimeLimit.truncated"

Observations = Any
"""An array [n_envs, *shape], or a dict or tuple of such arrays."""


@dataclass(frozen=True)
class StepBatch:
    """One step of all environments of a worker."""

    observations: Observations
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    infos: dict[int, dict[str, Any]]
    """By the environment's index within the worker; those that hold nothing are left out."""
    reset_infos: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Infos of the resets that followed an episode's end, by index within the worker."""


def stack(observations: Sequence[Any], space: spaces.Space[Any]) -> Observations:
    """Stack observations along a new first axis, in the space's dtype, as SB3's DummyVecEnv does."""
    if isinstance(space, spaces.Dict):
        return {key: stack([obs[key] for obs in observations], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack([obs[i] for obs in observations], part) for i, part in enumerate(space.spaces))
    return np.stack([np.asarray(obs) for obs in observations]).astype(space.dtype, copy=False)


def join(batches: Sequence[Observations]) -> Observations:
    """Concatenate the workers' observations into arrays that may be written to."""
    first = batches[0]
    if isinstance(first, dict):
        return {key: join([batch[key] for batch in batches]) for key in first}
    if isinstance(first, tuple):
        return tuple(join([batch[i] for batch in batches]) for i in range(len(first)))
    return np.concatenate(batches)


class EnvWorker:
    """Steps its environments one after the other; the workers of a run step at the same time."""

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        self._envs = [env_fn() for env_fn in env_fns]
        self._space = self._envs[0].observation_space
        self._listener: Listener

    def listen(self, key: bytes) -> Address:
        """Open the port on which `serve` waits, and return its address."""
        self._listener, address = listen(ray.util.get_node_ip_address(), key)
        return address

    def serve(self) -> None:
        """Answer the driver's calls until it hangs up, then close the environments."""
        try:
            serve(self._listener, self)
        finally:
            self.close()

    def spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any], dict[str, Any]]:
        """Return the first environment's observation space, action space and metadata."""
        return self._space, self._envs[0].action_space, dict(self._envs[0].metadata)

    def reset(
        self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]
    ) -> tuple[Observations, dict[int, Any]]:
        """Reset every environment and return the stacked observations and the infos that hold something."""
        observations, infos = [], {}
        for index, env in enumerate(self._envs):
            chosen = {"options": options[index]} if options[index] else {}
            obs, info = env.reset(seed=seeds[index], **chosen)
            observations.append(obs)
            if info:
                infos[index] = info
        return stack(observations, self._space), infos

    def step(self, actions: NDArray[Any]) -> StepBatch:
        """Step every environment; one whose episode ends is reset, its last observation kept in its info."""
        actions = np.array(actions)  # what Ray hands over is read-only, and some environments clip in place
        n_envs = len(self._envs)
        observations: list[Any] = []
        rewards, dones = np.zeros(n_envs, np.float32), np.zeros(n_envs, np.bool_)
        infos: dict[int, dict[str, Any]] = {}
        reset_infos: dict[int, dict[str, Any]] = {}
        for index, env in enumerate(self._envs):
            obs, rewards[index], terminated, truncated, info = env.step(actions[index])
            if info:
                infos[index] = info
            if terminated or truncated:
                dones[index] = True
                infos[index] = info | {TRUNCATED_KEY: truncated and not terminated, "terminal_observation": obs}
                obs, reset_infos[index] = env.reset()
            observations.append(obs)
        return StepBatch(stack(observations, self._space), rewards, dones, infos, reset_infos)

    def call(self, indices: Sequence[int], name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Call a method of the environments with the given indices."""
        return [self._envs[index].get_wrapper_attr(name)(*args, **kwargs) for index in indices]

    def get(self, indices: Sequence[int], name: str) -> list[Any]:
        """Return an attribute of the environments with the given indices."""
        return [self._envs[index].get_wrapper_attr(name) for index in indices]

    def has(self, name: str) -> bool:
        """Return whether every environment has an attribute."""
        return all(env.has_wrapper_attr(name) for env in self._envs)

    def set(self, indices: Sequence[int], name: str, value: Any) -> None:
        """Set an attribute of the outermost wrapper of the environments with the given indices."""
        for index in indices:
            setattr(self._envs[index], name, value)

    def is_wrapped(self, indices: Sequence[int], wrapper_class: type) -> list[bool]:
        """Return whether the environments with the given indices are wrapped in a class."""
        return [_has_wrapper(self._envs[index], wrapper_class) for index in indices]

    def render(self) -> list[Any]:
        """Return one picture of each environment."""
        return [env.render() for env in self._envs]

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()


RemoteEnvWorker: Any = remote(num_cpus=1, max_restarts=0, enable_task_events=False)(EnvWorker)


def _has_wrapper(env: gym.Env[Any, Any], wrapper_class: type) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
