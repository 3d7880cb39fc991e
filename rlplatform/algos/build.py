"""From a spec and environments to a model of Stable-Baselines3's shape."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gymnasium import spaces
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.algos.catalog import algorithms, find_algorithm
from rlplatform.algos.optimizers import fuse
from rlplatform.algos.values import action_noise, constructor_value, policy_arguments
from rlplatform.errors import AlgorithmError, did_you_mean
from rlplatform.specs.algos import AlgoSpec

_SMALLEST_CNN_IMAGE = 36
"""Pixels of a side that the three convolutions of SB3's NatureCNN need."""


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """Import the class of an algorithm.

    Raises:
        UnknownNameError: If no algorithm has that name.
        AlgorithmError: If the class cannot be imported or is no algorithm.
    """
    entry = find_algorithm(name)
    module, _, attribute = entry.algorithm.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise AlgorithmError(f"`{entry.name}` cannot be loaded from {entry.algorithm!r}: {err}.") from err
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise AlgorithmError(f"`{entry.name}` must be a subclass of SB3's BaseAlgorithm, got {found!r}.")
    return found


def check_spaces(
    spec: AlgoSpec, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], env_id: str
) -> None:
    """Check that an algorithm can act in an environment, before anything is built.

    Raises:
        AlgorithmError: If it cannot; the message says which algorithms can, or which option to change.
    """
    entry = find_algorithm(spec.name)
    kind = type(action_space).__name__
    if kind not in entry.action_spaces:
        fitting = sorted(other.name for other in algorithms().values() if kind in other.action_spaces)
        advice = f"Use one of: {', '.join(fitting)}." if fitting else "Wrap the environment: no algorithm acts in it."
        raise AlgorithmError(
            f"`{spec.name}` needs a {' or '.join(entry.action_spaces)} action space, `{env_id}` has {action_space}. "
            f"{advice}"
        )
    if isinstance(action_space, spaces.Discrete) and action_space.start != 0:
        raise AlgorithmError(
            f"Actions must be numbered from 0, `{env_id}` has {action_space}: SB3 would send it actions that "
            "it does not have. Wrap it with gymnasium.wrappers.TransformAction, which shifts them."
        )
    if isinstance(action_space, spaces.Box) and not action_space.is_bounded():
        raise AlgorithmError(
            f"`{spec.name}` needs bounded actions, `{env_id}` has {action_space}. Give its action space finite bounds."
        )
    if getattr(spec, "use_sde", False) and not isinstance(action_space, spaces.Box):
        raise AlgorithmError(
            f"`algorithm.use_sde` needs continuous actions, `{env_id}` has {action_space}. Leave it off."
        )
    if isinstance(observation_space, spaces.Dict) and entry.family == "off_policy":
        for option, neutral in (("n_steps", 1), ("optimize_memory_usage", False)):
            if getattr(spec, option, neutral) != neutral:
                raise AlgorithmError(
                    f"`algorithm.{option}` must be {neutral} with dictionary observations such as those of `{env_id}`, "
                    f"got {getattr(spec, option)}: SB3's buffer for them has no such feature."
                )
    if entry.recurrent and isinstance(observation_space, spaces.MultiDiscrete):
        # SB3 2.9.2 counts their features with a NumPy integer, which torch's LSTM refuses.
        raise AlgorithmError(
            f"`{spec.name}` cannot read MultiDiscrete observations such as those of `{env_id}`. "
            "Use the wrapper flatten_observation."
        )
    choose_policy(spec, observation_space)


def choose_policy(spec: AlgoSpec, observation_space: spaces.Space[Any]) -> str:
    """Return the name of the policy class: the spec's, or for `auto` the one that fits the observations.

    Raises:
        AlgorithmError: If the algorithm has no such policy, or none for these observations.
    """
    entry = find_algorithm(spec.name)
    known = algorithm_class(spec.name).policy_aliases
    is_dict = isinstance(observation_space, spaces.Dict)
    if spec.policy != "auto":
        if spec.policy not in known:
            raise AlgorithmError(f"`{spec.name}` has no policy {spec.policy!r}. {did_you_mean(spec.policy, known)}")
        if is_dict and not spec.policy.startswith("MultiInput"):
            raise AlgorithmError(
                f"`algorithm.policy` {spec.policy!r} cannot read dictionary observations. Use `policy: auto`."
            )
        return spec.policy
    suffix = "LstmPolicy" if entry.recurrent else "Policy"
    wanted = "MultiInput" if is_dict else "Cnn" if _is_large_image(observation_space) else "Mlp"
    for kind in (wanted,) if is_dict else (wanted, "Mlp"):
        if f"{kind}{suffix}" in known:
            return f"{kind}{suffix}"
    raise AlgorithmError(
        f"`{spec.name}` cannot read {observation_space}: it has only {', '.join(known) or 'policies without a name'}. "
        "Use the wrapper flatten_observation, or another algorithm."
    )


def _is_large_image(space: spaces.Space[Any]) -> bool:
    if not (isinstance(space, spaces.Box) and is_image_space(space)):
        return False
    sides = space.shape[1:] if is_image_space_channels_first(space) else space.shape[:2]
    return min(sides) >= _SMALLEST_CNN_IMAGE


def build_model(spec: AlgoSpec, env: VecEnv, *, seed: int, device: str) -> BaseAlgorithm:
    """Build an untrained model; the environments are seeded by SB3 with ``seed``, ``seed + 1``, and so on.

    Args:
        spec: The algorithm and its options.
        env: Environments, with normalisation around them where there is any.
        seed: Seed of networks, exploration and environments.
        device: Torch device of the networks, or ``auto``.

    Raises:
        AlgorithmError: If the algorithm cannot work with the environments or the options.
    """
    entry = find_algorithm(spec.name)
    cls = algorithm_class(spec.name)
    check_spaces(spec, env.observation_space, env.action_space, "env")
    if entry.masks and not is_masking_supported(env):
        raise AlgorithmError(
            f"`{spec.name}` needs environments with a method `action_masks()`, which these have not. "
            "Add the method, or use `ppo`."
        )
    arguments = constructor_arguments(spec, env)
    try:
        model = cls(
            choose_policy(spec, env.observation_space),
            env,
            seed=seed,
            device=device,
            verbose=0,
            policy_kwargs=policy_arguments(spec.policy_kwargs),
            **arguments,
        )
    # What SB3's and sb3-contrib's constructors raise, one or the other, for options that do not fit together.
    except (AssertionError, TypeError, ValueError, RuntimeError, NotImplementedError) as err:
        raise AlgorithmError(f"`{spec.name}` cannot be built with these options and environments: {err}.") from err
    if isinstance(model, OnPolicyAlgorithm):
        fuse(model)
    return model


def constructor_arguments(spec: AlgoSpec, env: VecEnv) -> dict[str, Any]:
    """Return the options of a spec as keyword arguments of the constructor, without the policy's."""
    arguments = {
        option: constructor_value(getattr(spec, option))
        for option in type(spec).model_fields
        if option not in ("name", "policy", "policy_kwargs")
    }
    if arguments.get("action_noise") is not None:
        arguments["action_noise"] = action_noise(arguments["action_noise"], env.action_space, env.num_envs)
    return arguments
