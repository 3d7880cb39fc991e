"""One environment from its spec. Imports neither torch nor Stable-Baselines3, so that workers start fast and small."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from rlplatform.envs.catalog import environments, family_of, find_wrapper, load_target
from rlplatform.envs.recorder import Recorder
from rlplatform.envs.rewards import load_reward
from rlplatform.envs.sampling import sample_action
from rlplatform.envs.wrappers import EpisodeMonitor, ShapedReward
from rlplatform.errors import EnvError, MissingPackageError, unknown_name
from rlplatform.specs.run import EnvSpec, WrapperSpec

_ATTRIBUTE = re.compile(r"[\w.]+:[A-Za-z_][\w.]*")
"""`module:Class`; Gymnasium's own `module:Name-v0` has a dash."""
_ANY_ENV_ERROR = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    gym.error.Error,
)
"""What the code of an environment or a wrapper may raise when it does not work as asked."""
_TRIED_STEPS = 3


def make_env(env: EnvSpec, *, training: bool, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make one environment with its wrappers.

    Args:
        env: What to make.
        training: Apply the reward function, give ``info["episode"]`` at an episode's end, and record what exact resume
            needs. False: the environment's own reward, for evaluation.
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
    return Recorder(EpisodeMonitor(made))


def check_env(env: EnvSpec) -> None:
    """Make one environment and take a few steps, so that one that does not work is told before anything is trained.

    Raises:
        UnknownNameError: If the environment, a wrapper or the reward function is in no catalog.
        MissingPackageError: If the environment needs a package that is not installed.
        EnvError: If it cannot be made, fails in its first steps, or gives observations of another shape than it says.
    """
    made = make_env(env, training=True)
    try:
        obs, _ = made.reset(seed=0)
        _check_observation(env, made, obs)
        for _ in range(_TRIED_STEPS):
            mask = made.get_wrapper_attr("action_masks")() if made.has_wrapper_attr("action_masks") else None
            obs, _, terminated, truncated, _ = made.step(sample_action(made.action_space, mask))
            _check_observation(env, made, obs)
            if terminated or truncated:
                made.reset()
    except _ANY_ENV_ERROR as err:
        raise EnvError(f"The environment {env.id!r} fails in its first steps: {type(err).__name__}: {err}") from err
    finally:
        made.close()


def _check_observation(env: EnvSpec, made: gym.Env[Any, Any], obs: Any) -> None:
    space = made.observation_space
    shape = getattr(obs, "shape", None)
    if isinstance(space, gym.spaces.Box) and shape != space.shape:
        raise EnvError(
            f"The environment {env.id!r} must give observations of shape {space.shape}, as its `observation_space` "
            f"says, got {type(obs).__name__} of shape {shape}. Mend one of the two."
        )


def _make_bare(env: EnvSpec, render_mode: str | None) -> gym.Env[Any, Any]:
    entry = environments().get(env.id)
    target = entry.target if entry is not None else None
    if target is None and _ATTRIBUTE.fullmatch(env.id):
        target = env.id
    if target is None:
        return _make_registered(env, render_mode)
    kwargs = env.kwargs if render_mode is None else {**env.kwargs, "render_mode": render_mode}
    made = _construct(f"The environment {env.id!r}", load_target(target), kwargs)
    if not isinstance(made, gym.Env):
        raise EnvError(
            f"`env.id` must name a Gymnasium environment, got {env.id!r}, which makes a {type(made).__name__}."
        )
    return made if env.max_episode_steps is None else TimeLimit(made, env.max_episode_steps)


def _make_registered(env: EnvSpec, render_mode: str | None) -> gym.Env[Any, Any]:
    find_registered(env.id)
    make = functools.partial(
        gym.make, env.id, render_mode=render_mode, max_episode_steps=env.max_episode_steps, disable_env_checker=True
    )
    return cast("gym.Env[Any, Any]", _construct(f"The environment {env.id!r}", make, env.kwargs))


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
                f"The environment {env_id!r} needs the package {family.module!r}, which is not installed. "
                f"Run `{family.install}`."
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


def _wrap(env: gym.Env[Any, Any], wrapper: WrapperSpec) -> gym.Env[Any, Any]:
    constructor = load_target(find_wrapper(wrapper.name).target)
    wrapped = _construct(f"The wrapper {wrapper.name!r}", functools.partial(constructor, env), wrapper.kwargs)
    if not isinstance(wrapped, gym.Env):
        raise EnvError(
            f"The wrapper {wrapper.name!r} must give a Gymnasium environment, got a {type(wrapped).__name__}."
        )
    return wrapped


def _construct(what: str, make: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """Call a constructor of somebody else and tell in words why it did not work."""
    try:
        with warnings.catch_warnings():
            # A newer version of the environment exists; and Gymnasium turned a bound from a file into float32.
            warnings.filterwarnings("ignore", message=".*is out of date", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            return make(**kwargs)
    except (ImportError, gym.error.DependencyNotInstalled) as err:
        raise MissingPackageError(f"{what} needs a package that is not here: {str(err).rstrip('.')}.") from err
    except _ANY_ENV_ERROR as err:
        raise EnvError(f"{what} cannot be made with `kwargs` {kwargs}: {err}") from err
