"""From a spec's values to the objects that Stable-Baselines3 takes: schedules, noise, training frequency, networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pydantic import BaseModel
from stable_baselines3.common import noise
from stable_baselines3.common.utils import LinearSchedule

from rlplatform.errors import AlgorithmError
from rlplatform.specs.algo_options import NormalNoise, OrnsteinUhlenbeckNoise, ReplayBufferKwargs, TrainFrequency
from rlplatform.specs.schedules import ScheduleSpec

ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "elu": torch.nn.ELU,
    "selu": torch.nn.SELU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
    "mish": torch.nn.Mish,
    "sigmoid": torch.nn.Sigmoid,
    "softplus": torch.nn.Softplus,
    "identity": torch.nn.Identity,
}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class ExponentialSchedule:
    """A value multiplied by the same factor at every step; a class of a module, because SB3 pickles schedules on save.

    Args:
        initial: Value at the first step, > 0.
        final: Value from ``end_fraction`` of the budget on, > 0.
        end_fraction: Fraction of the budget, in (0, 1].
    """

    initial: float
    final: float
    end_fraction: float

    def __call__(self, progress_remaining: float) -> float:
        """Return the value with this share of the budget left, from 1 to 0, and below 0 past the budget."""
        elapsed = min((1.0 - progress_remaining) / self.end_fraction, 1.0)
        return float(self.initial * (self.final / self.initial) ** elapsed)


def schedule(value: float | ScheduleSpec) -> float | LinearSchedule | ExponentialSchedule:
    """Return what SB3 takes as a constant or a schedule."""
    if not isinstance(value, ScheduleSpec):
        return value
    if value.schedule == "constant":
        return value.initial
    shape = LinearSchedule if value.schedule == "linear" else ExponentialSchedule
    return shape(value.initial, value.final, value.end_fraction)


def action_noise(
    spec: NormalNoise | OrnsteinUhlenbeckNoise, action_space: spaces.Space[Any], n_envs: int
) -> noise.ActionNoise:
    """Return the noise of all environments together.

    Args:
        spec: Its kind and parameters.
        action_space: A Box; one number is used for all its dimensions.
        n_envs: Environments; each has noise of its own.

    Raises:
        AlgorithmError: If there are more or fewer numbers than action dimensions.
    """
    n_dimensions = int(np.prod(action_space.shape or ()))
    mean, sigma = (_per_dimension(value, n_dimensions) for value in (spec.mean, spec.sigma))
    one: noise.ActionNoise
    if isinstance(spec, OrnsteinUhlenbeckNoise):
        one = noise.OrnsteinUhlenbeckActionNoise(mean, sigma, theta=spec.theta, dt=spec.dt)
    else:
        one = noise.NormalActionNoise(mean, sigma)
    return one if n_envs == 1 else noise.VectorizedActionNoise(one, n_envs)


def _per_dimension(value: float | tuple[float, ...], n_dimensions: int) -> np.ndarray:
    if isinstance(value, tuple) and len(value) != n_dimensions:
        raise AlgorithmError(
            f"`algorithm.action_noise` must hold one number or {n_dimensions}, one for each action dimension, got "
            f"{len(value)}: {value}."
        )
    return np.full(n_dimensions, value, dtype=np.float64)


def constructor_value(value: Any) -> Any:
    """Return one option as SB3's constructors take it."""
    if isinstance(value, ScheduleSpec):
        return schedule(value)
    if isinstance(value, TrainFrequency):
        return (value.n, value.unit)
    if isinstance(value, ReplayBufferKwargs):
        return value.model_dump()
    return value


def policy_arguments(spec: BaseModel | dict[str, Any]) -> dict[str, Any]:
    """Return the networks' keyword arguments: those that differ from the policy's own defaults.

    Defaults are left out because SB3 asks whether an argument was given: A2C's optimizer, DDPG's number of critics.
    """
    if isinstance(spec, dict):
        return dict(spec)
    arguments = spec.model_dump(exclude_defaults=True)
    if "activation_fn" in arguments:
        arguments["activation_fn"] = ACTIVATIONS[arguments["activation_fn"]]
    if "optimizer_class" in arguments:
        arguments["optimizer_class"] = OPTIMIZERS[arguments["optimizer_class"]]
    if "net_arch" in arguments:
        arguments["net_arch"] = _as_lists(arguments["net_arch"])
    return arguments


def _as_lists(layers: Any) -> Any:
    return {key: list(units) for key, units in layers.items()} if isinstance(layers, dict) else list(layers)
