"""What all environments that are stepped as one array share: Stable-Baselines3's contract on top of batched results."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from rlplatform.envs.rewards import RewardFunction, batch_rewards
from rlplatform.envs.wrappers import TRUE_RETURN, TRUE_REWARD

Obs = Any
"""One array [n_envs, …], or a dict of them."""


@dataclass(frozen=True)
class BatchedStep:
    """What one step of all environments gave, before any of them is reset."""

    obs: Obs
    """Fresh arrays: nobody writes to them later."""
    rewards: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: dict[str, Any]
    """Gymnasium's: `key` → array [n_envs], `_key` → which rows of it mean something."""


class BatchedVecEnv(VecEnv):
    """A VecEnv whose environments are stepped as one; info dicts have content only where an episode ends.

    Args:
        n_envs: How many environments.
        observation_space: Of one environment.
        action_space: Of one environment.
        reward_function: Replaces the environments' reward; called once for the whole batch.
    """

    def __init__(
        self,
        n_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        reward_function: RewardFunction | None,
    ) -> None:
        super().__init__(n_envs, observation_space, action_space)
        self._reward_function = reward_function
        self._actions: NDArray[Any] = np.empty(0)
        self._obs: Obs = None
        self._returns = np.zeros(n_envs)
        self._true_returns = np.zeros(n_envs)
        self._lengths = np.zeros(n_envs, dtype=np.int64)
        self._started_at = time.time()

    @abstractmethod
    def _reset_all(self, seed: int | None, options: dict[str, Any] | None) -> Obs:
        """Reset every environment and return fresh arrays."""

    @abstractmethod
    def _step_all(self, actions: NDArray[Any]) -> BatchedStep:
        """Step every environment; where an episode ends, `obs` is the last observation of that episode."""

    @abstractmethod
    def _reset_done(self, obs: Obs, dones: NDArray[np.bool_]) -> Obs:
        """Reset the environments in `dones` and return `obs` with their first observations in place."""

    def reset(self) -> VecEnvObs:
        """Reset all environments; a seed given before is used once, for all of them together."""
        self._obs = self._reset_all(self._seeds[0], self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        for totals in (self._returns, self._true_returns, self._lengths):
            totals[:] = 0
        obs: VecEnvObs = _copy(self._obs)
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember what to do."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments and reset those whose episode ended."""
        step = self._step_all(self._actions)
        rewards, infos = step.rewards, self._infos(step)
        if self._reward_function is not None:
            rewards = batch_rewards(self._reward_function, self._obs, self._actions, step.obs, self.num_envs)
            self._true_returns += step.rewards
        self._returns += rewards
        self._lengths += 1
        dones = step.terminated | step.truncated
        obs = step.obs
        if dones.any():
            self._finish(step, dones, infos)
            obs = self._reset_done(obs, dones)
        self._obs = obs
        return _copy(obs), rewards.astype(np.float32), dones, infos

    def _infos(self, step: BatchedStep) -> list[dict[str, Any]]:
        if self._reward_function is not None:
            infos: list[dict[str, Any]] = [{TRUE_REWARD: float(reward)} for reward in step.rewards]
        else:
            infos = [{} for _ in range(self.num_envs)]
        for key, values in step.infos.items():
            if not key.startswith("_"):
                for i in np.flatnonzero(step.infos.get(f"_{key}", np.ones(self.num_envs, dtype=bool))):
                    infos[i][key] = values[i]
        return infos

    def _finish(self, step: BatchedStep, dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> None:
        seconds = round(time.time() - self._started_at, 6)
        for i in map(int, np.flatnonzero(dones)):
            # Rounded as Stable-Baselines3's Monitor does.
            episode = {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds}
            infos[i]["episode"] = episode
            infos[i]["terminal_observation"] = _row(step.obs, i)
            infos[i]["TimeLimit.truncated"] = bool(step.truncated[i] and not step.terminated[i])
            if self._reward_function is not None:
                infos[i][TRUE_RETURN] = float(self._true_returns[i])
        for totals in (self._returns, self._true_returns, self._lengths):
            totals[dones] = 0

    # --- what else a VecEnv answers -----------------------------------------------------------------------------------

    @abstractmethod
    def _inside(self) -> Any:
        """Return the object that attributes and methods are looked up on."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the whole, once for each environment."""
        return [getattr(self._inside(), attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole."""
        setattr(self._inside(), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the whole, which must give one result for each environment, such as ``action_masks``."""
        results = getattr(self._inside(), method_name)(*method_args, **method_kwargs)
        return [results[i] for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False: there is no single environment to wrap."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return one picture for each environment, or None where there is none."""
        return [None] * self.num_envs


def _copy(obs: Obs) -> Obs:
    return {key: part.copy() for key, part in obs.items()} if isinstance(obs, dict) else obs.copy()


def _row(obs: Obs, i: int) -> Any:
    return {key: part[i].copy() for key, part in obs.items()} if isinstance(obs, dict) else obs[i].copy()
