"""One small run for each algorithm of the catalog: a fitting environment, tiny networks, a hundred or two steps."""

from __future__ import annotations

from typing import Any

from rlplatform.algos.catalog import algorithms, find_algorithm
from rlplatform.specs.run import RunSpec

_ROLLOUT = {"n_steps": 32, "policy_kwargs": {"net_arch": [16]}}
_MINIBATCH = {**_ROLLOUT, "batch_size": 32}
_REPLAY = {
    "learning_starts": 40,
    "buffer_size": 150,
    "batch_size": 16,
    "train_freq": 8,
    "policy_kwargs": {"net_arch": [16]},
}
_NOISE = {"action_noise": {"type": "ornstein_uhlenbeck", "sigma": 0.2}}

OPTIONS: dict[str, dict[str, Any]] = {
    "ppo": {**_MINIBATCH, "n_epochs": 2, "learning_rate": {"schedule": "linear", "initial": 1e-3}},
    "maskable_ppo": {**_MINIBATCH, "n_epochs": 2},
    "recurrent_ppo": {**_MINIBATCH, "n_epochs": 2, "policy_kwargs": {"net_arch": [16], "lstm_hidden_size": 8}},
    "a2c": {"n_steps": 8, "policy_kwargs": {"net_arch": [16]}},
    "trpo": {**_MINIBATCH, "n_critic_updates": 2},
    "dqn": {**_REPLAY, "target_update_interval": 20, "exploration_fraction": 0.5},
    "qrdqn": {**_REPLAY, "policy_kwargs": {"net_arch": [16], "n_quantiles": 5}},
    "sac": _REPLAY,
    "td3": {**_REPLAY, **_NOISE},
    "ddpg": {**_REPLAY, **_NOISE},
    "tqc": _REPLAY,
    "crossq": _REPLAY,
    "grpo": {"group_size": 4, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [16]}},
    "ars": {"n_delta": 2, "policy": "LinearPolicy"},
}


def small_spec(algorithm: str, /, **changes: Any) -> RunSpec:
    """Return a run of 192 steps of CartPole, or of Pendulum for continuous actions.

    Args:
        algorithm: A name from the catalog; one that is not in `OPTIONS` runs on its defaults.
        changes: Parts of the spec to replace or to merge.
    """
    discrete = "Discrete" in find_algorithm(algorithm).action_spaces
    value: dict[str, Any] = {
        "algorithm": {"name": algorithm, **OPTIONS.get(algorithm, {})},
        "env": {"id": "CartPole-v1" if discrete else "Pendulum-v1", "n_envs": 2},
        "budget": {"total_timesteps": 192},
        "evaluation": {"every_steps": 64, "n_episodes": 2, "final_episodes": 2},
        "checkpoint": {"every_steps": 64},
        "tracking": {"log_every_steps": 16, "tensorboard": False},
        "seed": 3,
    }
    if algorithm == "maskable_ppo":
        value["env"]["id"] = "tests.envs_for_tests:MaskedEnv"
    if algorithm == "ars":  # One update plays four whole episodes.
        value["budget"] = {"total_timesteps": 800}
    for part, change in changes.items():
        value[part] = {**value[part], **change} if isinstance(change, dict) and part in value else change
    return RunSpec.model_validate(value)


ALGORITHMS = tuple(algorithms())
