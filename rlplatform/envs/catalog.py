"""Which environments, wrappers, rewards and backends exist, as strings: nothing is imported until it is used.

Another package adds to the first three by entry points in the groups ``rlplatform.environments``,
``rlplatform.wrappers`` and ``rlplatform.rewards``: the entry point's name is the name, its object is the class or the
function. A built-in name cannot be replaced. Every id that Gymnasium knows works without being listed here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from rlplatform.errors import EnvError, unknown_name
from rlplatform.names import ENVIRONMENT_ENTRY_POINTS, REWARD_ENTRY_POINTS, WRAPPER_ENTRY_POINTS


@dataclass(frozen=True)
class EnvironmentEntry:
    """One environment of the catalog."""

    id: str
    """Gymnasium's id, or the entry point's name."""
    summary: str
    target: str | None = None
    """`module:Class` of an environment that is not in Gymnasium's registry."""


@dataclass(frozen=True)
class WrapperEntry:
    """One environment wrapper of the catalog."""

    name: str
    target: str
    """`module:Class`."""
    summary: str


@dataclass(frozen=True)
class RewardEntry:
    """One reward function of the catalog."""

    name: str
    target: str
    """`module:function`."""
    summary: str


@dataclass(frozen=True)
class EnvironmentFamily:
    """Environments that another package registers with Gymnasium when it is imported."""

    prefixes: tuple[str, ...]
    """How the ids begin."""
    module: str
    """What to import."""
    install: str
    """The command that installs it."""


BACKENDS: Mapping[str, str] = {
    "sync": "rlplatform.envs.sync:make_sync_vec_env",
    "subproc": "rlplatform.envs.subproc:make_subproc_vec_env",
    "vector": "rlplatform.envs.vector:make_vector_vec_env",
    "envpool": "rlplatform.envs.pool:make_pool_vec_env",
    "ray": "rlplatform.cluster.env_workers:make_ray_vec_env",
}
"""Backend → what makes its VecEnv: `sync` by ``f(env_fns)``, `subproc` and `ray` by ``f(env_fns, n_workers)``; `vector`
and `envpool`, which step all environments as one, by ``f(env_spec, reward_function, seed)``."""

FAMILIES: tuple[EnvironmentFamily, ...] = (
    EnvironmentFamily(("ALE/",), "ale_py", 'pip install "gymnasium[atari]"'),
    EnvironmentFamily(("MiniGrid-", "BabyAI-"), "minigrid", "pip install minigrid"),
    EnvironmentFamily(
        ("Fetch", "HandReach", "HandManipulate", "AntMaze", "PointMaze", "AdroitHand", "FrankaKitchen"),
        "gymnasium_robotics",
        "pip install gymnasium-robotics",
    ),
    EnvironmentFamily(
        ("highway-", "merge-", "roundabout-", "parking-", "intersection-"), "highway_env", "pip install highway-env"
    ),
    EnvironmentFamily(("dm_control/",), "shimmy", 'pip install "shimmy[dm-control]"'),
    EnvironmentFamily(("Meta-World/",), "metaworld", "pip install metaworld"),
)


def _gymnasium(name: str, class_name: str, summary: str) -> WrapperEntry:
    return WrapperEntry(name, f"gymnasium.wrappers:{class_name}", summary)


_ENVIRONMENTS = {
    entry.id: entry
    for entry in (
        EnvironmentEntry("CartPole-v1", "Balance a pole on a cart; 2 actions, 500 steps, solved at 475."),
        EnvironmentEntry(
            "Acrobot-v1", "Swing the tip of a two-link pendulum over a line; 3 actions, 500 steps, solved at -100."
        ),
        EnvironmentEntry(
            "MountainCar-v0", "Rock an underpowered car out of a valley; 3 actions, sparse reward, solved at -110."
        ),
        EnvironmentEntry("MountainCarContinuous-v0", "The same car with a continuous force; 999 steps, solved at 90."),
        EnvironmentEntry("Pendulum-v1", "Swing a pendulum up and hold it; continuous torque, 200 steps."),
        EnvironmentEntry(
            "LunarLander-v3", "Land between two flags; 4 actions, 1,000 steps, solved at 200. Wind by kwargs."
        ),
        EnvironmentEntry("LunarLanderContinuous-v3", "The same lander with two continuous throttles; solved at 200."),
        EnvironmentEntry(
            "BipedalWalker-v3", "Walk over gentle ground on two legs; 4 torques, 1,600 steps, solved at 300."
        ),
        EnvironmentEntry("BipedalWalkerHardcore-v3", "Walk over stumps, stairs and pits; 2,000 steps, solved at 300."),
        EnvironmentEntry("CarRacing-v3", "Drive a track from a 96 x 96 image; 3 continuous controls, solved at 900."),
    )
}

_WRAPPERS = {
    entry.name: entry
    for entry in (
        WrapperEntry("landing_monitor", "rlplatform.envs.landing_monitor:LandingMonitor",
                     "LunarLander: landing outcome, statistics and reward components in `info`."),
        WrapperEntry("atari", "stable_baselines3.common.atari_wrappers:AtariWrapper",
                     "Usual Atari preprocessing: no-op starts, frame skip, 84 x 84 grey, life loss, clipped reward."),
        _gymnasium("clip_action", "ClipAction", "Clip continuous actions to their bounds."),
        _gymnasium("rescale_action", "RescaleAction", "Rescale continuous actions to [`min_action`, `max_action`]."),
        _gymnasium("discretize_action", "DiscretizeAction", "Cut continuous actions into `bins`."),
        _gymnasium("sticky_action", "StickyAction", "Repeat the last action with `repeat_action_probability`."),
        _gymnasium("flatten_observation", "FlattenObservation", "Make the observation one flat vector."),
        _gymnasium("filter_observation", "FilterObservation", "Keep only `filter_keys` of a Dict observation."),
        _gymnasium("frame_stack", "FrameStackObservation", "Stack the last `stack_size` observations."),
        _gymnasium("grayscale", "GrayscaleObservation", "Turn image observations grey."),
        _gymnasium("resize", "ResizeObservation", "Resize image observations to `shape`; needs opencv-python."),
        _gymnasium("rescale_observation", "RescaleObservation", "Rescale observations to [`min_obs`, `max_obs`]."),
        _gymnasium("time_aware", "TimeAwareObservation", "Add the time in the episode to the observation."),
        _gymnasium("delay_observation", "DelayObservation", "Show observations `delay` steps late."),
        _gymnasium("max_and_skip", "MaxAndSkipObservation", "Repeat actions `skip` times; last two frames' maximum."),
    )
}  # fmt: skip

_REWARDS = {
    entry.name: entry
    for entry in (
        RewardEntry("optimized_cartpole", "rlplatform.envs.rewards:optimized_cartpole",
                    "CartPole: 0.1 to 6, highest for an upright pole in the middle of the track."),
        RewardEntry("simple_cartpole", "rlplatform.envs.rewards:simple_cartpole",
                    "CartPole: 0.1 to 1, falling linearly with the pole's angle."),
    )
}  # fmt: skip


def environments() -> Mapping[str, EnvironmentEntry]:
    """Return the environments that are listed: well-known ones of Gymnasium and those of other packages."""
    plugins = {
        name: EnvironmentEntry(name, f"From {target}.", target)
        for name, target in _plugins(ENVIRONMENT_ENTRY_POINTS).items()
    }
    return {**plugins, **_ENVIRONMENTS}


def wrappers() -> Mapping[str, WrapperEntry]:
    """Return every wrapper that has a name."""
    plugins = {
        name: WrapperEntry(name, target, f"From {target}.") for name, target in _plugins(WRAPPER_ENTRY_POINTS).items()
    }
    return {**plugins, **_WRAPPERS}


def rewards() -> Mapping[str, RewardEntry]:
    """Return every reward function that has a name."""
    plugins = {
        name: RewardEntry(name, target, f"From {target}.") for name, target in _plugins(REWARD_ENTRY_POINTS).items()
    }
    return {**plugins, **_REWARDS}


def find_wrapper(name: str) -> WrapperEntry:
    """Return the wrapper called `name`, or one made of `module:Class`.

    Raises:
        UnknownNameError: If no wrapper has that name.
    """
    if ":" in name:
        return WrapperEntry(name, name, f"From {name}.")
    known = wrappers()
    if name not in known:
        raise unknown_name("wrapper", name, known)
    return known[name]


def find_reward(name: str) -> RewardEntry:
    """Return the reward function called `name`, or one made of `module:function`.

    Raises:
        UnknownNameError: If no reward function has that name.
    """
    if ":" in name:
        return RewardEntry(name, name, f"From {name}.")
    known = rewards()
    if name not in known:
        raise unknown_name("reward", name, known, "rlplatform rewards")
    return known[name]


def family_of(env_id: str) -> EnvironmentFamily | None:
    """Return the family whose package registers `env_id`, if it is a known one."""
    return next((family for family in FAMILIES if env_id.startswith(family.prefixes)), None)


def load_target(target: str) -> Any:
    """Import the module of `module:attr` and return its attribute; modules of the current directory are found as well.

    Raises:
        EnvError: If there is no such module or attribute.
    """
    module_name, _, attr = target.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        # An installed command does not look there by itself. Last, so that nothing installed is shadowed.
        sys.path.append(here)
    try:
        value: Any = importlib.import_module(module_name)
        for part in attr.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as err:
        raise EnvError(
            f"{target!r} cannot be loaded: {err}. Write `module:attribute` of something that can be imported here."
        ) from err
    return value


@cache
def _plugins(group: str) -> dict[str, str]:
    return {point.name: point.value for point in importlib.metadata.entry_points(group=group)}
