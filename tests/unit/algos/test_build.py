"""Models from specs: every algorithm trains in every space it claims, and says what it needs where it does not fit."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlplatform.algos.build import build_model, check_spaces, choose_policy
from rlplatform.algos.catalog import ALL_ACTION_SPACES, algorithms, find_algorithm
from rlplatform.algos.optimizers import optimizers
from rlplatform.errors import AlgorithmError
from rlplatform.specs.algos import parse_algo
from tests.envs_for_tests import OBSERVATIONS, TinyEnv
from tests.unit.algos.helpers import KEY_OF_SPACE, small_spec, tiny_envs

NAMES = sorted(algorithms())
ACTING = [(name, kind) for name in NAMES for kind in algorithms()[name].action_spaces]
NOT_ACTING = [(name, kind) for name in NAMES for kind in ALL_ACTION_SPACES if (name, kind) not in ACTING]
UNREADABLE = ("recurrent_ppo", "multi_discrete")
"""torch's LSTM refuses the NumPy integer that SB3 2.9.2 counts these observations' features with."""
SEEING = [
    (name, kind)
    for name in ("ppo", "dqn", "recurrent_ppo", "sac")
    for kind in OBSERVATIONS
    if (name, kind) != UNREADABLE
]


def weights(model: BaseAlgorithm) -> np.ndarray:
    return np.concatenate([value.detach().numpy().ravel() for value in model.policy.parameters()])


@pytest.mark.parametrize(("name", "kind"), ACTING)
def test_every_algorithm_trains_in_every_action_space_it_claims(name: str, kind: str) -> None:
    envs = tiny_envs(find_algorithm(name), actions=KEY_OF_SPACE[kind])
    model = build_model(small_spec(name), envs, seed=1, device="cpu")
    before = weights(model).copy()
    model.learn(64)
    after = weights(model)
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(("name", "observations"), SEEING)
def test_auto_finds_the_policy_for_every_observation_space(name: str, observations: str) -> None:
    envs = tiny_envs(find_algorithm(name), n_envs=1, observations=observations)
    model = build_model(small_spec(name), envs, seed=1, device="cpu")
    kind = {"image": "Cnn", "dict": "MultiInput"}.get(observations, "Mlp")
    suffix = "LstmPolicy" if name == "recurrent_ppo" else "Policy"
    assert model.policy_class is model.policy_aliases[f"{kind}{suffix}"]
    action, _ = model.predict(envs.reset())  # type: ignore[arg-type]  # SB3's VecEnvObs is wider than its predict
    assert envs.action_space.contains(action[0])


@pytest.mark.parametrize(("name", "kind"), NOT_ACTING)
def test_a_wrong_action_space_is_refused_with_the_algorithms_that_fit(name: str, kind: str) -> None:
    space = TinyEnv(actions=KEY_OF_SPACE[kind]).action_space
    fitting = next(other for other in NAMES if kind in algorithms()[other].action_spaces)
    with pytest.raises(AlgorithmError, match=rf"`{name}` needs a .* space, `X-v0` has .*Use one of: .*{fitting}"):
        check_spaces(parse_algo(name), OBSERVATIONS["box"], space, "X-v0")


def test_unbounded_actions_are_refused() -> None:
    space = spaces.Box(-np.inf, np.inf, (1,))
    with pytest.raises(AlgorithmError, match="needs bounded actions, `X-v0` has"):
        check_spaces(parse_algo("sac"), OBSERVATIONS["box"], space, "X-v0")


def test_gsde_needs_continuous_actions() -> None:
    with pytest.raises(AlgorithmError, match=r"`algorithm\.use_sde` needs continuous actions"):
        check_spaces(parse_algo({"name": "ppo", "use_sde": True}), OBSERVATIONS["box"], spaces.Discrete(2), "X-v0")


@pytest.mark.parametrize(
    "options",
    [{"n_steps": 3}, {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}],
)
def test_dictionary_observations_exclude_some_buffers(options: dict[str, Any]) -> None:
    spec = parse_algo({"name": "dqn", **options})
    option = next(iter(options))
    with pytest.raises(AlgorithmError, match=rf"`algorithm\.{option}` must be .* with dictionary observations"):
        check_spaces(spec, OBSERVATIONS["dict"], spaces.Discrete(2), "X-v0")


@pytest.mark.parametrize("name", ["crossq", "ars"])
def test_an_algorithm_without_a_policy_for_dictionaries_says_so(name: str) -> None:
    with pytest.raises(AlgorithmError, match=f"`{name}` cannot read Dict"):
        choose_policy(parse_algo(name), OBSERVATIONS["dict"])


def test_an_mlp_cannot_read_dictionaries() -> None:
    with pytest.raises(AlgorithmError, match=r"cannot read dictionary observations\. Use `policy: auto`"):
        choose_policy(parse_algo({"name": "ppo", "policy": "MlpPolicy"}), OBSERVATIONS["dict"])


def test_small_images_are_read_by_an_mlp() -> None:
    assert choose_policy(parse_algo("ppo"), spaces.Box(0, 255, (8, 8, 3), np.uint8)) == "MlpPolicy"


def test_masks_are_asked_for() -> None:
    with pytest.raises(AlgorithmError, match=r"needs environments with a method `action_masks\(\)`"):
        build_model(parse_algo("maskable_ppo"), DummyVecEnv([TinyEnv]), seed=0, device="cpu")


def test_observations_that_the_library_cannot_read_are_an_error_of_ours() -> None:
    name, observations = UNREADABLE
    with pytest.raises(AlgorithmError, match="`recurrent_ppo` cannot read MultiDiscrete observations"):
        build_model(small_spec(name), tiny_envs(find_algorithm(name), observations=observations), seed=0, device="cpu")


def test_what_only_the_constructor_can_tell_is_an_error_of_ours() -> None:
    spec = parse_algo({"name": "ppo", "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}})
    with pytest.raises(AlgorithmError, match=r"`ppo` cannot be built .*features_dim"):
        build_model(spec, DummyVecEnv([TinyEnv]), seed=0, device="cpu")


def _continuous(n_envs: int) -> VecEnv:
    return DummyVecEnv([lambda: TinyEnv(actions="box")] * n_envs)


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("kind", ["normal", "ornstein_uhlenbeck"])
def test_action_noise_has_one_row_for_each_environment(kind: str, n_envs: int) -> None:
    spec = small_spec("td3", action_noise={"type": kind, "sigma": [0.1, 0.2]})
    model = build_model(spec, _continuous(n_envs), seed=0, device="cpu")
    assert model.action_noise is not None
    assert np.shape(model.action_noise()) == ((2,) if n_envs == 1 else (n_envs, 2))


def test_noise_must_fit_the_action_dimensions() -> None:
    spec = parse_algo({"name": "td3", "action_noise": {"sigma": [0.1, 0.2, 0.3]}})
    with pytest.raises(AlgorithmError, match=r"must hold one number or 2, one for each action dimension, got 3"):
        build_model(spec, _continuous(1), seed=0, device="cpu")


def test_networks_follow_the_spec() -> None:
    spec = parse_algo(
        {"name": "ppo", "policy_kwargs": {"net_arch": {"pi": [8], "vf": [12, 4]}, "activation_fn": "elu",
                                          "optimizer_class": "adamw", "optimizer_kwargs": {"weight_decay": 0.5}}}
    )  # fmt: skip
    policy: Any = build_model(spec, DummyVecEnv([TinyEnv]), seed=0, device="cpu").policy
    assert [type(layer).__name__ for layer in policy.mlp_extractor.policy_net] == ["Linear", "ELU"]
    assert [layer.out_features for layer in policy.mlp_extractor.value_net if hasattr(layer, "out_features")] == [12, 4]
    assert isinstance(policy.optimizer, torch.optim.AdamW)
    assert policy.optimizer.param_groups[0]["weight_decay"] == 0.5


@pytest.mark.parametrize(("name", "n"), [("ppo", 1), ("trpo", 1), ("grpo", 1), ("a2c", 0)])
def test_an_adam_on_policy_does_its_step_in_one_kernel(name: str, n: int) -> None:
    kind = find_algorithm(name).action_spaces[0]
    model = build_model(
        small_spec(name), tiny_envs(find_algorithm(name), actions=KEY_OF_SPACE[kind]), seed=0, device="cpu"
    )
    adams = [optimizer for optimizer in optimizers(model) if isinstance(optimizer, torch.optim.Adam)]
    assert len(adams) == n
    assert all(group["fused"] for optimizer in adams for group in optimizer.param_groups)


def test_a_spec_may_say_otherwise() -> None:
    spec = parse_algo({"name": "ppo", "policy_kwargs": {"optimizer_kwargs": {"foreach": True, "eps": 1e-5}}})
    (adam,) = optimizers(build_model(spec, DummyVecEnv([TinyEnv]), seed=0, device="cpu"))
    assert adam.param_groups[0]["foreach"]
    assert not adam.param_groups[0]["fused"]


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_n_step_returns_and_episodic_training_work(name: str) -> None:
    spec = small_spec(name, n_steps=3, train_freq={"n": 1, "unit": "episode"})
    model = build_model(spec, tiny_envs(find_algorithm(name), n_envs=1), seed=0, device="cpu")
    model.learn(48)
    assert model._n_updates > 0


def test_a_saved_model_with_schedules_and_noise_loads_again(tmp_path: Any) -> None:
    spec = small_spec(
        "sac",
        learning_rate={"schedule": "exponential", "initial": 1e-3, "final": 1e-5},
        action_noise={"type": "ornstein_uhlenbeck", "sigma": 0.1},
    )
    model = build_model(spec, _continuous(1), seed=0, device="cpu")
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", device="cpu")
    assert loaded.lr_schedule(0.5) == pytest.approx(1e-4)
    assert np.array_equal(weights(loaded), weights(model))


def test_a_gymnasium_id_is_named_in_the_message() -> None:
    env = gym.make("Pendulum-v1")
    with pytest.raises(AlgorithmError, match=r"`dqn` needs a Discrete action space, `Pendulum-v1` has Box"):
        check_spaces(parse_algo("dqn"), env.observation_space, env.action_space, "Pendulum-v1")


def test_actions_that_do_not_begin_at_zero_are_refused() -> None:
    spec = parse_algo({"name": "ppo"})
    with pytest.raises(AlgorithmError, match=r"Actions must be numbered from 0, `Odd-v0` has Discrete\(3, start=1\)"):
        check_spaces(spec, spaces.Box(-1, 1, (2,)), spaces.Discrete(3, start=1), "Odd-v0")
