"""From an EnvSpec to environments: one for evaluation, or a vector of them for training, whatever the backend."""

from __future__ import annotations

import functools
from typing import Any, cast

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.envs.catalog import BACKENDS, load_target
from rlplatform.envs.probe import is_exact, is_repeatable
from rlplatform.envs.rewards import load_reward
from rlplatform.envs.single import check_env, make_env
from rlplatform.errors import CheckpointError, EnvError, SpecError
from rlplatform.logs import get_logger
from rlplatform.specs.run import Backend, EnvSpec, EnvState

__all__ = ["make_env", "make_vec_env", "resolve_env", "reward_threshold", "spaces_of"]

logger = get_logger(__name__)

_STEPPED_AS_ONE = frozenset({"vector", "envpool"})
_VECTOR_FROM = 8
"""Environments from which on NumPy's fixed cost of a step pays: see docs/results/env_backends.md."""


def make_vec_env(env: EnvSpec, *, seed: int) -> VecEnv:
    """Make the training environments of one run, not yet reset.

    Every backend gives Stable-Baselines3 the same: reset in the step that ends an episode, and in that step's info
    ``terminal_observation``, ``TimeLimit.truncated`` and ``episode`` (return trained on, length, seconds).

    Args:
        env: What to make; an `auto` backend is decided here.
        seed: Environment i's first reset is seeded with ``seed + i``; environments stepped as one are seeded together.

    Raises:
        UnknownNameError: If the environment, a wrapper or the reward function is in no catalog.
        MissingPackageError: If the environment or the backend needs a package that is not installed.
        EnvError: If the environments cannot be made, or the backend cannot run them.
    """
    backend = _resolve_backend(env)
    make = load_target(BACKENDS[backend])
    if backend in _STEPPED_AS_ONE:
        reward = None if env.reward is None else load_reward(env.reward)
        venv = make(env, reward, seed)
    else:
        fn = functools.partial(make_env, env, training=True)
        workers = () if backend == "sync" else (_n_workers(env),)
        venv = make([fn] * env.n_envs, *workers)
    venv.seed(seed)
    return cast(VecEnv, venv)


def resolve_env(env: EnvSpec, seed: int) -> EnvSpec:
    """Return the spec with every `auto` decided, after checking that the environment can be made and stepped.

    Whether its state can be restored exactly is tried, not assumed: see :mod:`rlplatform.envs.probe`.

    Args:
        env: What was asked for.
        seed: Seeds what is tried.

    Raises:
        UnknownNameError: If the environment, a wrapper or the reward function is in no catalog.
        MissingPackageError: If the environment or the backend needs a package that is not installed.
        EnvError: If the environment cannot be made, or the backend cannot run it.
        CheckpointError: If `env.state` asks for a way of restoring that is not exact for this environment.
    """
    check_env(env)
    backend = _resolve_backend(env)
    n_workers = env.n_workers
    if backend in _STEPPED_AS_ONE:
        _check_same_spaces(env.model_copy(update={"backend": backend}))
    else:
        n_workers = _n_workers(env) if backend != "sync" else None
    resolved = env.model_copy(update={"backend": backend, "n_workers": n_workers})
    return resolved.model_copy(update={"state": _resolve_state(resolved, seed)})


def spaces_of(env: EnvSpec) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return the observation and the action space of one environment, wrappers included."""
    made = make_env(env, training=False)
    made.close()
    return made.observation_space, made.action_space


def reward_threshold(env: EnvSpec) -> float | None:
    """Return the mean return from which the environment counts as solved, if it is registered with one."""
    made = make_env(env, training=False)
    made.close()
    return None if made.spec is None or made.spec.reward_threshold is None else float(made.spec.reward_threshold)


# --- what `auto` becomes ----------------------------------------------------------------------------------------------


def _n_workers(env: EnvSpec) -> int:
    return min(env.n_workers or env.n_envs, env.n_envs)


def _check_same_spaces(env: EnvSpec) -> None:
    venv = make_vec_env(env.model_copy(update={"n_envs": 2}), seed=0)
    venv.close()
    trained = (venv.observation_space, venv.action_space)
    for name, one, other in zip(("observation", "action"), trained, spaces_of(env), strict=True):
        if (type(one), one.shape, one.dtype) != (type(other), other.shape, other.dtype):
            raise EnvError(
                f"The backend {env.backend!r} gives {env.id!r} the {name} space {one}, Gymnasium gives it {other}; "
                "evaluation is on Gymnasium's. Use `env.backend: sync` or `subproc`."
            )


def _resolve_backend(env: EnvSpec) -> Backend:
    """Return the backend; `auto` is `vector` where that gives the same and is faster, else `sync`."""
    if env.backend != "auto":
        return env.backend
    if (
        env.n_envs < _VECTOR_FROM
        or env.wrappers
        or env.id not in gym.registry
        or gym.registry[env.id].vector_entry_point is None
    ):
        return "sync"
    try:
        make_vec_env(env.model_copy(update={"backend": "vector"}), seed=0).close()
    except EnvError as err:
        logger.info("env.backend: sync, because %s", err)
        return "sync"
    return "vector"


def _resolve_state(env: EnvSpec, seed: int) -> EnvState:
    exact_way: EnvState = "snapshot" if env.backend == "vector" else "replay"
    if env.state not in ("auto", "rebuild", exact_way):
        raise SpecError(
            f"`env.state` must be auto, rebuild or {exact_way} with the backend {env.backend!r}, got {env.state!r}. "
            "Use auto."
        )
    as_one = env.backend in _STEPPED_AS_ONE
    small = env.model_copy(update={"n_envs": 2} if as_one else {"n_envs": 1, "backend": "sync"})
    make = functools.partial(make_vec_env, small)
    if env.state == "rebuild":
        reason = "as asked"
    elif env.backend == "envpool":
        reason = "because EnvPool's state cannot be read"
    elif is_exact(make, seed):
        logger.info("env.state: %s, because %s was restored bit for bit in a trial", exact_way, env.id)
        return exact_way
    else:
        reason = f"because a restored {env.id} did not go on as the original in a trial"
    if env.state == exact_way:
        raise CheckpointError(
            f"`env.state: {exact_way}` is not exact for {env.id!r}: a restored copy gave other observations or "
            "rewards. Use `env.state: rebuild`."
        )
    if is_repeatable(make, seed):
        logger.info("env.state: rebuild, %s", reason)
    else:
        logger.warning(
            "%s gives other observations for the same seed: runs on it can be neither repeated nor resumed exactly. "
            "Draw all its randomness from `self.np_random`.",
            env.id,
        )
    return "rebuild"
