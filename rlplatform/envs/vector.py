"""The `vector` backend: Gymnasium's own vector environments, stepped as one NumPy computation.

Stable-Baselines3 wants an environment reset in the step that ends its episode. Gymnasium's vector environments reset in
the same step, in the next one, or only when told; all three are brought to the first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from rlplatform.envs.batched import BatchedStep, BatchedVecEnv, Obs
from rlplatform.envs.rewards import RewardFunction
from rlplatform.errors import EnvError, MissingPackageError
from rlplatform.specs.run import EnvSpec

InPlaceReset = Callable[[Any, NDArray[np.bool_]], None]


def _reset_cartpoles(env: Any, dones: NDArray[np.bool_]) -> None:
    """Reset some of the cart-poles; exactly what their own next step would do, without that step."""
    env.state[:, dones] = env.np_random.uniform(low=env.low, high=env.high, size=(4, int(dones.sum())))
    env.steps[dones] = 0
    env.prev_done[dones] = False


_IN_PLACE: dict[type[Any], tuple[InPlaceReset, Callable[[Any], NDArray[Any]]]] = {
    CartPoleVectorEnv: (_reset_cartpoles, lambda env: env.state.T.astype(np.float32)),
}
"""Vector environments that reset in the next step → how to reset some of them now, and how to read the observations."""


class GymVectorVecEnv(BatchedVecEnv):
    """A Gymnasium vector environment as a VecEnv.

    Args:
        env: The vector environment.
        reward_function: Replaces the environments' reward.

    Raises:
        EnvError: If it resets in the next step and cannot be made to reset now.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], reward_function: RewardFunction | None = None) -> None:
        self.env = env
        self._mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._in_place = _IN_PLACE.get(type(env.unwrapped))
        if self._mode is AutoresetMode.NEXT_STEP and self._in_place is None:
            raise EnvError(
                f"The vector environment {type(env.unwrapped).__name__} resets in the step after an episode's last; "
                "training needs it in the same step. Use `env.backend: sync`, or give the environment Gymnasium's "
                "AutoresetMode.DISABLED."
            )
        self._first_obs: Obs = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space, reward_function)

    def _reset_all(self, seed: int | None, options: dict[str, Any] | None) -> Obs:
        return _fresh(self.env.reset(seed=seed, options=options)[0])

    def _step_all(self, actions: NDArray[Any]) -> BatchedStep:
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        obs = _fresh(obs)
        if self._mode is AutoresetMode.SAME_STEP:
            self._first_obs, infos = obs, dict(infos)
            last = infos.pop("final_obs", None)
            obs = _replace_rows(obs, last, terminated | truncated)
            infos |= infos.pop("final_info", {})
        return BatchedStep(obs, rewards, terminated, truncated, infos)

    def _reset_done(self, obs: Obs, dones: NDArray[np.bool_]) -> Obs:
        if self._mode is AutoresetMode.SAME_STEP:
            return self._first_obs
        if self._mode is AutoresetMode.DISABLED:
            return _fresh(self.env.reset(options={"reset_mask": dones})[0])
        assert self._in_place is not None
        reset, observe = self._in_place
        reset(self.env.unwrapped, dones)
        return _fresh(observe(self.env.unwrapped))

    def _inside(self) -> Any:
        return self.env.unwrapped

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()

    # --- exact state --------------------------------------------------------------------------------------------------

    def snapshot(self) -> object:
        """Return a copy of the environment's arrays, numbers and generators, and of the episodes' totals."""
        return copy.deepcopy({
            "inside": {name: value for name, value in vars(self.env.unwrapped).items() if _is_data(value)},
            "totals": (self._returns, self._true_returns, self._lengths),
            "obs": self._obs,
        })  # fmt: skip

    def restore(self, state: Any) -> VecEnvObs:
        """Take a snapshot over and return the observations."""
        state = copy.deepcopy(state)
        vars(self.env.unwrapped).update(state["inside"])
        self._returns, self._true_returns, self._lengths = state["totals"]
        self._obs = state["obs"]
        self._reset_seeds()
        obs: VecEnvObs = copy.deepcopy(self._obs)
        return obs


def make_vector_vec_env(env: EnvSpec, reward_function: RewardFunction | None, seed: int) -> GymVectorVecEnv:
    """Make the vector version of an environment.

    Raises:
        EnvError: If the environment has none, or something is asked that only works on single environments.
    """
    if env.wrappers:
        names = ", ".join(wrapper.name for wrapper in env.wrappers)
        raise EnvError(
            f"`env.backend: vector` cannot wrap single environments, got the wrappers {names}. Use `env.backend: sync`."
        )
    spec = gym.registry.get(env.id)
    if spec is None or spec.vector_entry_point is None:
        raise EnvError(f"The environment {env.id!r} has no vector version. Use `env.backend: sync` or `subproc`.")
    kwargs: dict[str, Any] = dict(env.kwargs)
    if env.max_episode_steps is not None:
        kwargs["max_episode_steps"] = env.max_episode_steps
    try:
        made = gym.make_vec(env.id, num_envs=env.n_envs, vectorization_mode="vector_entry_point", **kwargs)
    except ImportError as err:
        raise MissingPackageError(f"The vector version of {env.id!r} needs a package that is not here: {err}.") from err
    except (TypeError, ValueError, AssertionError, gym.error.Error) as err:
        raise EnvError(
            f"The vector version of {env.id!r} cannot be made with `env.kwargs` {env.kwargs}: {err}"
        ) from err
    return GymVectorVecEnv(made, reward_function)


def _fresh(obs: Any) -> Obs:
    """Copy observations, row after row in memory: the environment may write to its own arrays in the next step."""
    if isinstance(obs, dict):
        return {key: np.array(part, order="C") for key, part in obs.items()}
    return np.array(obs, order="C")


def _replace_rows(obs: Obs, rows: Any, mask: NDArray[np.bool_]) -> Obs:
    """Return a copy of `obs` with the masked rows taken from `rows`, an array of single observations."""
    replaced = _fresh(obs)
    for i in np.flatnonzero(mask):
        if isinstance(replaced, dict):
            for key, part in replaced.items():
                part[i] = rows[i][key]
        else:
            replaced[i] = rows[i]
    return replaced


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_data, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_data, value))
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return value is None or isinstance(value, (bool, int, float, str, np.generic, np.random.Generator))
