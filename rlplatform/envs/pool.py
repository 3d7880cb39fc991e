"""The `envpool` backend: EnvPool's C++ environments in a pool of threads.

Their dynamics are EnvPool's own, so `auto` never picks it; their state cannot be read, so exact resume rebuilds them at
every scheduled checkpoint.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlplatform.envs.batched import BatchedStep, BatchedVecEnv, Obs
from rlplatform.envs.rewards import RewardFunction
from rlplatform.errors import EnvError, MissingPackageError, unknown_name
from rlplatform.specs.run import EnvSpec

_LARGEST_SEED = 2**31 - 1


class PoolVecEnv(BatchedVecEnv):
    """An EnvPool as a VecEnv.

    Args:
        env: What to make; `n_workers` is the number of threads.
        reward_function: Replaces the environments' reward.
        seed: Of the pool. A pool takes a seed only when it is made: `reset` after another `seed()` makes a new one.
    """

    def __init__(self, env: EnvSpec, reward_function: RewardFunction | None, seed: int) -> None:
        self._spec = env
        self._pool, self._pool_seed, self._is_fresh = _make_pool(env, seed), seed, True
        self.render_mode = None
        super().__init__(env.n_envs, self._pool.observation_space, self._pool.action_space, reward_function)

    def _reset_all(self, seed: int | None, options: dict[str, Any] | None) -> Obs:
        if seed is not None and not (self._is_fresh and seed == self._pool_seed):
            self._pool.close()
            self._pool, self._pool_seed = _make_pool(self._spec, seed), seed
        self._is_fresh = False
        obs, _ = self._pool.reset()
        return _copied(obs)

    def _step_all(self, actions: NDArray[Any]) -> BatchedStep:
        obs, rewards, terminated, truncated, _ = self._pool.step(np.asarray(actions))
        return BatchedStep(_copied(obs), rewards, terminated.astype(bool), truncated.astype(bool), {})

    def _reset_done(self, obs: Obs, dones: NDArray[np.bool_]) -> Obs:
        ids = np.flatnonzero(dones).astype(np.int32)
        first, _ = self._pool.reset(ids)
        replaced = _copied(obs)
        if isinstance(replaced, dict):
            for key, part in replaced.items():
                part[ids] = first[key]
        else:
            replaced[ids] = first
        return replaced

    def _inside(self) -> Any:
        return self

    def close(self) -> None:
        """Stop the pool's threads."""
        self._pool.close()


def make_pool_vec_env(env: EnvSpec, reward_function: RewardFunction | None, seed: int) -> PoolVecEnv:
    """Make the environments in EnvPool.

    Raises:
        MissingPackageError: If EnvPool is not installed.
        UnknownNameError: If EnvPool does not have the environment.
        EnvError: If something is asked that EnvPool cannot do.
    """
    if env.wrappers:
        names = ", ".join(wrapper.name for wrapper in env.wrappers)
        raise EnvError(
            f"`env.backend: envpool` cannot wrap single environments, got the wrappers {names}. "
            "Use `env.backend: subproc`."
        )
    return PoolVecEnv(env, reward_function, seed)


def _make_pool(env: EnvSpec, seed: int) -> Any:
    try:
        import envpool
    except ImportError as err:
        raise MissingPackageError(
            "`env.backend: envpool` needs the package envpool, which is not installed. Run `pip install envpool`."
        ) from err
    known = set(envpool.list_all_envs())
    task = env.id.removeprefix("ALE/")
    if task not in known:
        raise unknown_name("EnvPool environment", env.id, known)
    limit = {} if env.max_episode_steps is None else {"max_episode_steps": env.max_episode_steps}
    threads = {} if env.n_workers is None else {"num_threads": env.n_workers}
    seed %= _LARGEST_SEED + 1
    try:
        with warnings.catch_warnings():
            # The first look at a pool's spaces makes them, from float64 bounds, of which Gymnasium warns.
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            pool = envpool.make_gymnasium(task, num_envs=env.n_envs, seed=seed, **threads, **limit, **env.kwargs)
            assert pool.observation_space is not None
            assert pool.action_space is not None
    except (TypeError, ValueError, AssertionError, RuntimeError) as err:
        raise EnvError(f"EnvPool cannot make {env.id!r} with `env.kwargs` {env.kwargs}: {err}") from err
    return pool


def _copied(obs: Any) -> Obs:
    return {key: np.array(part) for key, part in obs.items()} if isinstance(obs, dict) else np.array(obs)
