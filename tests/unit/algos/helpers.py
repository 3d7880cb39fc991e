"""Small fitting environments and options for every algorithm of the catalog."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlplatform.algos.catalog import AlgorithmEntry
from rlplatform.specs.algos import AlgoSpec, parse_algo, spec_class
from tests.envs_for_tests import MaskedEnv, TinyEnv

KEY_OF_SPACE = {
    "Discrete": "discrete",
    "MultiDiscrete": "multi_discrete",
    "MultiBinary": "multi_binary",
    "Box": "box",
}
SMALL = {
    "n_steps": 16,
    "batch_size": 16,
    "n_epochs": 1,
    "n_critic_updates": 1,
    "buffer_size": 200,
    "learning_starts": 16,
    "train_freq": 8,
    "n_delta": 1,
}
"""Options that make training quick, for the algorithms that have them."""


def tiny_envs(
    entry: AlgorithmEntry, *, n_envs: int = 2, actions: str | None = None, observations: str = "box"
) -> VecEnv:
    """Return environments that an algorithm can act in."""
    cls = MaskedEnv if entry.masks else TinyEnv
    kind = actions or KEY_OF_SPACE[entry.action_spaces[0]]
    return DummyVecEnv([lambda: Monitor(cls(observations=observations, actions=kind))] * n_envs)


def small_spec(name: str, **options: Any) -> AlgoSpec:
    """Return a spec with tiny networks and short rollouts."""
    fields = spec_class(name).model_fields
    chosen: dict[str, Any] = {key: value for key, value in SMALL.items() if key in fields}
    if "buffer_size" in fields:
        del chosen["n_steps"]  # There it is the length of n-step returns.
    networks: dict[str, Any] = {"net_arch": [16]}
    if name == "recurrent_ppo":
        networks["lstm_hidden_size"] = 8
    return parse_algo({"name": name, "policy_kwargs": networks, **chosen, **options})
