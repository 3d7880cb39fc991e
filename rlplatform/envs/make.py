"""From an EnvSpec to environments: one for evaluation, or a vector of them for training, whatever the backend."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.envs.catalog import BACKENDS, environments, family_of, find_wrapper, load_target
from rlplatform.envs.probe import is_exact, is_repeatable
from rlplatform.envs.replay import Recorder
from rlplatform.envs.rewards import load_reward
from rlplatform.envs.wrappers import ShapedReward
from rlplatform.errors import CheckpointError, EnvError, MissingPackageError, SpecError, unknown_name
from rlplatform.specs.run import EnvSpec, WrapperSpec

logger = logging.getLogger(__name__)

_ATTRIBUTE = re.compile(r"[\w.]+:[A-Za-z_][\w.]*")
"""`module:Class`; Gymnasium's own `module:Name-v0` has a dash."""
_STEPPED_AS_ONE = frozenset({"vector", "envpool"})


def make_env(env: EnvSpec, *, training: bool, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make one environment with its wrappers.

    Args:
        env: What to make.
        training: Apply the reward function, and record episode statistics (``info["episode"]``) and what exact resume needs.
            False: the environment's own reward, for evaluation.
        render_mode: Gymnasium's, such as ``rgb_array``.

    Raises:
        UnknownNameError: If the environment, a wrapper or the reward function is in no catalog.
        MissingPackageError: If the environment needs a package that is not installed.
        EnvError: If it cannot be made, or a wrapper does not fit.
    """
    made = _make_bare(env, render_mode)
    for wrapper in env.wrappers:
        made = _wrap(made, wrapper)
    if not training:
        return made
    if env.reward is not None:
        made = ShapedReward(made, load_reward(env.reward))
    return Recorder(Monitor(made))


def make_vec_env(env: EnvSpec, *, seed: int) -> VecEnv:
    """Make the training environments of one run, not yet reset.

    Every backend gives Stable-Baselines3 the same: reset in the step that ends an episode, with ``terminal_observation``,
    ``TimeLimit.truncated`` and ``episode`` (return trained on, length, seconds) in that step's info.

    Args:
        env: What to make; an `auto` backend is decided here.
        seed: Environment i's first reset is seeded with ``seed + i``; environments stepped as one are seeded together.

    Raises:
        UnknownNameError: If the environment, a wrapper or the reward function is in no catalog.
        MissingPackageError: If the environment or the backend needs a package that is not installed.
        EnvError: If the environments cannot be made, or the backend cannot run them.
    """
    backend = _resolve_backend(env) if env.backend == "auto" else env.backend
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
    make_env(env, training=True).close()
    backend = _resolve_backend(env) if env.backend == "auto" else env.backend
    n_workers = _n_workers(env) if backend in ("subproc", "ray") else None
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


# --- one environment ----------------------------------------------------------------------------------------------------


def _make_bare(env: EnvSpec, render_mode: str | None) -> gym.Env[Any, Any]:
    entry = environments().get(env.id)
    target = entry.target if entry is not None else None
    if target is None and _ATTRIBUTE.fullmatch(env.id):
        target = env.id
    if target is None:
        return _make_registered(env, render_mode)
    kwargs = env.kwargs if render_mode is None else {**env.kwargs, "render_mode": render_mode}
    made = _call(load_target(target), env.id, kwargs)
    if not isinstance(made, gym.Env):
        raise EnvError(f"`env.id` must name a Gymnasium environment, got {env.id!r}, which makes a {type(made).__name__}.")
    return made if env.max_episode_steps is None else TimeLimit(made, env.max_episode_steps)


def _make_registered(env: EnvSpec, render_mode: str | None) -> gym.Env[Any, Any]:
    find_registered(env.id)
    make = functools.partial(
        gym.make, env.id, render_mode=render_mode, max_episode_steps=env.max_episode_steps, disable_env_checker=True
    )
    return cast("gym.Env[Any, Any]", _call(make, env.id, env.kwargs))


def find_registered(env_id: str) -> gym.envs.registration.EnvSpec:
    """Return Gymnasium's registration of an id, after importing the package that registers it.

    Raises:
        UnknownNameError: If no installed package registers it.
        MissingPackageError: If the package that would is not installed.
    """
    family = family_of(env_id)
    if family is not None and env_id not in gym.registry:
        if importlib.util.find_spec(family.module) is None:
            raise MissingPackageError(
                f"The environment {env_id!r} needs the package {family.module!r}, which is not installed. Run `{family.install}`."
            )
        importlib.import_module(family.module)
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as err:
            raise EnvError(f"The module of the environment {env_id!r} cannot be imported: {err}.") from err
    if name not in gym.registry:
        raise unknown_name("environment", env_id, {*gym.registry, *environments()}, "rlplatform environments")
    return gym.registry[name]


def _call(make: Callable[..., Any], env_id: str, kwargs: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is out of date", category=DeprecationWarning)
            return make(**kwargs)
    except gym.error.DependencyNotInstalled as err:
        raise MissingPackageError(f"The environment {env_id!r} needs a package: {str(err).rstrip('.')}.") from err
    except ImportError as err:
        raise MissingPackageError(f"The environment {env_id!r} needs a package that is not here: {str(err).rstrip('.')}.") from err
    except (TypeError, ValueError, AssertionError, gym.error.Error) as err:
        raise EnvError(f"The environment {env_id!r} cannot be made with `env.kwargs` {kwargs}: {err}") from err


def _wrap(env: gym.Env[Any, Any], wrapper: WrapperSpec) -> gym.Env[Any, Any]:
    constructor = load_target(find_wrapper(wrapper.name).target)
    try:
        wrapped = constructor(env, **wrapper.kwargs)
    except gym.error.DependencyNotInstalled as err:
        raise MissingPackageError(f"The wrapper {wrapper.name!r} needs a package: {str(err).rstrip('.')}.") from err
    except (TypeError, ValueError, AttributeError, AssertionError, gym.error.Error) as err:
        raise EnvError(f"The wrapper {wrapper.name!r} does not fit with `kwargs` {wrapper.kwargs}: {err}") from err
    if not isinstance(wrapped, gym.Env):
        raise EnvError(f"The wrapper {wrapper.name!r} must give a Gymnasium environment, got a {type(wrapped).__name__}.")
    return wrapped


# --- what `auto` becomes ------------------------------------------------------------------------------------------------


def _n_workers(env: EnvSpec) -> int:
    return min(env.n_workers or env.n_envs, env.n_envs)


def _resolve_backend(env: EnvSpec) -> str:
    """Return `vector` where the environment has a vector version that gives the same, else `sync`."""
    if env.n_envs < 2 or env.wrappers or env.id not in gym.registry or gym.registry[env.id].vector_entry_point is None:
        return "sync"
    try:
        make_vec_env(env.model_copy(update={"backend": "vector"}), seed=0).close()
    except EnvError as err:
        logger.info("env.backend: sync, because %s", err)
        return "sync"
    return "vector"


def _resolve_state(env: EnvSpec, seed: int) -> str:
    exact_way = "snapshot" if env.backend == "vector" else "replay"
    if env.state not in ("auto", "rebuild", exact_way):
        raise SpecError(
            f"`env.state` must be auto, rebuild or {exact_way} with the backend {env.backend!r}, got {env.state!r}. Use auto."
        )
    small = env.model_copy(update={"n_envs": 2 if env.backend in _STEPPED_AS_ONE else 1})
    local = small if env.backend in _STEPPED_AS_ONE else small.model_copy(update={"backend": "sync"})
    make = functools.partial(make_vec_env, local)
    if env.state != "rebuild" and env.backend != "envpool" and is_exact(make, seed):
        logger.info("env.state: %s, because %s came back bit for bit from a snapshot", exact_way, env.id)
        return exact_way
    if env.state == exact_way:
        raise CheckpointError(
            f"`env.state: {exact_way}` is not exact for {env.id!r}: a restored copy gave other observations or rewards. "
            "Use `env.state: rebuild`."
        )
    if not is_repeatable(make, seed):
        logger.warning(
            "%s gives other observations for the same seed: runs on it cannot be repeated or resumed exactly. "
            "Draw all its randomness from `self.np_random`.", env.id,
        )
    else:
        logger.info("env.state: rebuild, %s", "as asked" if env.state == "rebuild" else f"because {env.id} does not come back exactly")
    return "rebuild"
