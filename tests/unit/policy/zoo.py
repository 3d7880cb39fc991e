"""Small untrained models of every algorithm over every kind of space, with weights that make them act variedly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from rlplatform.algos.build import algorithm_class
from rlplatform.algos.catalog import AlgorithmEntry, algorithms

IMAGE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-np.inf, np.inf, (5,), np.float32),
    "box_float64_2d": spaces.Box(-3.0, 3.0, (2, 3), np.float64),
    "dict": spaces.Dict(
        {
            "where": spaces.Box(-2.0, 2.0, (3,), np.float32),
            "which": spaces.Discrete(4),
            "image": IMAGE,
            "bits": spaces.MultiBinary(3),
        }
    ),
    "dict_choices": spaces.Dict({"choices": spaces.MultiDiscrete([2, 3]), "with space/odd name": spaces.Discrete(3)}),
    "image": IMAGE,
    "discrete": spaces.Discrete(7),
    "multi_discrete": spaces.MultiDiscrete([3, 4, 2]),
    "multi_binary": spaces.MultiBinary(6),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(4),
    "Discrete_from_3": spaces.Discrete(3, start=3),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(np.array([-1.0, -0.5], np.float32), np.array([2.0, 0.5], np.float32)),
    "Box_float64_2d": spaces.Box(-0.7, 0.3, (2, 2), np.float64),
}
_OFF_POLICY = {"buffer_size": 8}
_RECURRENT = {"lstm_hidden_size": 8, "n_lstm_layers": 2}


@dataclass(frozen=True)
class Case:
    """One algorithm on one observation and one action space."""

    algorithm: str
    observation: str
    action: str

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.observation}-{self.action}"


class Still(gym.Env[Any, Any]):
    """An environment with given spaces in which nothing happens."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}

    def action_masks(self) -> np.ndarray:
        return np.ones(1, bool)


def cases() -> list[Case]:
    """Every algorithm of the catalog on every space that it supports."""
    return [
        Case(entry.name, observation, action)
        for entry in algorithms().values()
        for observation in OBSERVATIONS
        if _sees(entry, observation)
        for action in ACTIONS
        if action.split("_")[0] in entry.action_spaces
    ]


def _sees(entry: AlgorithmEntry, observation: str) -> bool:
    if entry.recurrent and observation in ("multi_discrete", "dict_choices"):
        return (
            False  # RecurrentPPO itself fails there: it gives torch's LSTM a size of type np.int64 (sb3-contrib 2.9.2).
        )
    aliases: dict[str, Any] = algorithm_class(entry.name).policy_aliases
    return any(name.startswith(_prefix(OBSERVATIONS[observation])) for name in aliases)


def _prefix(space: spaces.Space[Any]) -> str:
    return "MultiInput" if isinstance(space, spaces.Dict) else "Cnn" if space is IMAGE else "Mlp"


def make_model(
    case: Case, *, normalize: bool = False, policy_kwargs: dict[str, Any] | None = None, **options: Any
) -> BaseAlgorithm:
    """Build a model with perturbed weights over `Still`; with `normalize`, over VecNormalize with odd statistics."""
    entry = algorithms()[case.algorithm]
    return make_model_for(
        entry,
        OBSERVATIONS[case.observation],
        ACTIONS[case.action],
        normalize=normalize,
        policy_kwargs=policy_kwargs,
        **options,
    )


def make_model_for(
    entry: AlgorithmEntry,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    normalize: bool = False,
    policy_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> BaseAlgorithm:
    torch.manual_seed(0)
    env: VecEnv = DummyVecEnv([lambda: Still(observation_space, action_space)])
    if normalize:
        env = _normalized(env)
    prefix = _prefix(observation_space)
    kwargs: dict[str, Any] = {"net_arch": [16]} | (_RECURRENT if entry.recurrent else {}) | (policy_kwargs or {})
    if prefix == "Cnn":
        kwargs["features_extractor_kwargs"] = {"features_dim": 16}
    if prefix == "MultiInput":
        kwargs["features_extractor_kwargs"] = {"cnn_output_dim": 16}
    name = f"{prefix}LstmPolicy" if entry.recurrent else f"{prefix}Policy"
    options |= _OFF_POLICY if entry.family == "off_policy" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SB3 about odd spaces and small buffers, which are the point here.
        model: BaseAlgorithm = algorithm_class(entry.name)(name, env, policy_kwargs=kwargs, device="cpu", **options)
    _perturb(model)
    return model


def observations(space: spaces.Space[Any], n: int, seed: int = 0) -> Any:
    """Draw `n` observations, far beyond what a fresh network is used to."""
    rng = np.random.default_rng(seed)
    match space:
        case spaces.Dict():
            return {key: observations(part, n, seed + i) for i, (key, part) in enumerate(space.items())}
        case spaces.Box() if space.dtype == np.uint8:
            # Blocks, not single pixels: a network averages noise away and would answer every image alike.
            blocks = rng.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8)
            return blocks.repeat(8, axis=1).repeat(9, axis=2)
        case spaces.Box():
            return (2.0 * rng.standard_normal((n, *space.shape))).astype(space.dtype)
        case spaces.Discrete():
            return rng.integers(0, space.n, n)
        case spaces.MultiDiscrete():
            return rng.integers(0, space.nvec, (n, len(space.nvec)))
        case spaces.MultiBinary():
            return rng.integers(0, 2, (n, *space.shape), dtype=np.int8)
    raise AssertionError(space)


def _normalized(env: VecEnv) -> VecNormalize:
    space = env.observation_space
    keys = (
        [key for key, part in space.items() if isinstance(part, spaces.Box) and len(part.shape) == 1]
        if isinstance(space, spaces.Dict)
        else None
    )
    normalized = VecNormalize(env, clip_obs=1.5, epsilon=1e-3, norm_obs_keys=keys)
    rng = np.random.default_rng(1)
    rms = normalized.obs_rms
    for moments in rms.values() if isinstance(rms, dict) else [rms]:
        moments.mean = rng.standard_normal(moments.mean.shape)
        moments.var = rng.uniform(0.1, 3.0, moments.var.shape)
    return normalized


def _perturb(model: BaseAlgorithm) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            scale = 2.0 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for name, buffer in model.policy.named_buffers():
            if name.endswith(("ra_mean", "ra_var")):
                buffer += torch.rand(buffer.shape, generator=generator)
