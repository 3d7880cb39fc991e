"""GRPO in the shape of SB3: it learns, saves, loads, and has no critic; every option does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from rlplatform.algos.grpo.algorithm import GRPO
from rlplatform.algos.grpo.groups import reset_with_seeds, starts_are_equal
from rlplatform.errors import AlgorithmError, EnvError
from tests.envs_for_tests import IdentityEnv, TinyEnv
from tests.unit.algos.grpo.envs import CounterEnv, RememberingEnv

SMALL: dict[str, Any] = {"group_size": 4, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}}


def tiny(n_envs: int = 3, **kwargs: Any) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(TinyEnv(**kwargs))] * n_envs)


def make(env: VecEnv | None = None, policy: str = "MlpPolicy", **options: Any) -> GRPO:
    return GRPO(policy, env or tiny(), device="cpu", **{"seed": 1, **SMALL, **options})


class Records(BaseCallback):
    """Keeps what was logged, and the episodes that ended at each step."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.logged: dict[str, float] = {}
        self.ended = 0
        self.stop_after = stop_after

    def _on_step(self) -> bool:
        self.ended += int(self.locals["dones"].sum())
        return self.stop_after is None or self.n_calls < self.stop_after

    def _on_rollout_end(self) -> None:
        self.logged |= self.logger.name_to_value


def weights(model: GRPO) -> np.ndarray:
    return np.concatenate([value.detach().numpy().ravel() for value in model.policy.parameters()])


def test_it_learns_to_name_what_it_sees() -> None:
    env = DummyVecEnv([lambda: Monitor(IdentityEnv())] * 4)
    model = make(env, group_size=8, batch_size=32, n_epochs=4, learning_rate=0.01, policy_kwargs={"net_arch": [16]})
    shown = np.arange(4)
    assert model.predict(shown, deterministic=True)[0].tolist() != shown.tolist()
    model.learn(6_000)
    assert model.predict(shown, deterministic=True)[0].tolist() == shown.tolist()
    assert np.mean([episode["r"] for episode in model.ep_info_buffer or ()]) > 12  # 5 by chance, of 20


def test_there_is_no_critic() -> None:
    model = make()
    names = [name for name, _ in model.policy.named_parameters()]
    assert names == [
        "policy_net.0.weight", "policy_net.0.bias", "action_net.weight", "action_net.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(("policy", "observations"), [("CnnPolicy", "image"), ("MultiInputPolicy", "dict")])
def test_images_and_dictionaries_are_read(policy: str, observations: str) -> None:
    options = {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}} if policy == "CnnPolicy" else {}}
    model = make(tiny(observations=observations), policy, **options)
    before = weights(model)
    model.learn(40)
    assert not np.array_equal(before, weights(model))


@pytest.mark.parametrize(
    "options",
    [
        {"advantage": "outcome", "scaling": "group", "weighting": "episode"},
        {"advantage": "process", "scaling": "none"},
        {"advantage": "linear"},
        {"advantage": "reinforce"},
        {"alive_peers_only": True, "truncation": "mask", "gamma": 0.9},
        {"n_groups": 2, "same_start": True},
        {"n_groups": 3, "dynamic_sampling": True, "advantage": "outcome"},
        {"overlap": False},
        {"kl_coef": 0.1, "reference_interval": 1},
        {"clip_range_high": 0.28, "target_kl": 0.01},
        {"n_steps": 100},
    ],
    ids=str,
)
def test_every_option_trains(options: dict[str, Any]) -> None:
    model = make(**options)
    before = weights(model)
    model.learn(150)
    assert np.isfinite(weights(model)).all()
    assert not np.array_equal(before, weights(model))


def test_a_saved_model_acts_the_same_and_goes_on(tmp_path: Path) -> None:
    model = make(kl_coef=0.1)
    model.learn(60)
    model.save(tmp_path / "model.zip")
    loaded = GRPO.load(tmp_path / "model.zip", env=tiny(), device="cpu")
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    steps = loaded.num_timesteps
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps >= steps + 60
    loaded.set_parameters(model.get_parameters())  # type: ignore[arg-type]  # SB3's own type is too narrow.
    assert np.array_equal(weights(model), weights(loaded))


def test_a_seed_repeats_a_training() -> None:
    one, other, different = (weights(make(seed=seed).learn(100)) for seed in (3, 3, 4))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, different)


def test_every_step_is_counted_and_every_update_has_its_episodes() -> None:
    model = make(n_groups=2)
    records = Records()
    model.learn(200, callback=records)
    assert model.num_timesteps == 3 * records.n_calls
    assert records.logged["rollout/n_episodes"] == 8
    # Whatever ended was used, or belongs to the next update, of which at most all have ended.
    assert 0 <= records.ended - 8 * model._n_batches <= 8


def test_a_rollout_that_a_callback_ends_is_taken_up_again() -> None:
    for overlap in (True, False):
        model = make(DummyVecEnv([CounterEnv] * 3), overlap=overlap)
        model.learn(100, callback=Records(stop_after=2))
        assert model.num_timesteps == 6
        assert model._n_batches == 0
        _, callback = model._setup_learn(100, Records(), reset_num_timesteps=False)
        assert model.env is not None
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 1)
        # The second part of each observation counts the steps of its episode: none is missing, none is there twice.
        seen = model.rollout_buffer.flat(range(4)).columns["observations"][:, 1]
        assert seen.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0] * 4


def test_schedules_are_those_of_the_rollouts_begin() -> None:
    """An update ends past the budget; a learning rate of 0 would waste the last one."""
    model = make(learning_rate=lambda remaining: remaining)
    model.learn(1)
    assert model.policy.optimizer.param_groups[0]["lr"] == 1.0


def test_log_std_stays_within_its_bounds() -> None:
    model = make(tiny(actions="box"), log_std_min=-0.001, log_std_max=0.001, learning_rate=0.1)
    model.learn(100)
    assert model.policy.log_std.abs().max() <= 0.001


def test_what_it_logs_says_how_an_update_went() -> None:
    model = make(n_groups=2, kl_coef=0.1)
    records = Records()
    model.learn(120, callback=records)
    assert {
        "rollout/degenerate_group_fraction", "rollout/alive_peers", "rollout/truncated_fraction",
        "rollout/advantage_mean", "rollout/advantage_std", "rollout/explained_variance", "rollout/carried_fraction",
        "rollout/idle_fraction", "train/approx_kl", "train/clip_fraction", "train/entropy_loss", "train/reference_kl",
    } <= set(records.logged)  # fmt: skip
    assert 0 <= records.logged["rollout/alive_peers"] <= 3


def test_the_reference_follows_every_so_many_updates() -> None:
    model = make(kl_coef=0.1, reference_interval=2)
    reference = model.reference_policy
    assert reference is not None

    def differ() -> bool:
        return not torch.equal(reference.action_net.weight, model.policy.action_net.weight)

    seen = []
    for _ in range(4):
        model.learn(1, reset_num_timesteps=False)
        seen.append(differ())
    assert seen == [True, False, True, False]


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3"])
def test_members_of_a_group_start_in_the_same_state(env_id: str) -> None:
    env = DummyVecEnv([lambda: gym.make(env_id)] * 3)
    obs: Any = reset_with_seeds(env, [5, 5, 6])
    assert np.array_equal(obs[0], obs[1])
    assert not np.array_equal(obs[0], obs[2])
    assert starts_are_equal(env, seed=3)


def test_groups_are_reset_with_one_seed_each() -> None:
    env = DummyVecEnv([lambda: CounterEnv(random_start=True)] * 8)
    model = make(env, n_groups=2, same_start=True)
    _, callback = model._setup_learn(100, Records())
    model.collect_rollouts(env, callback, model.rollout_buffer, 1)
    starts = [model.rollout_buffer.flat([i]).columns["observations"][0, 0] for i in range(8)]
    assert starts[:4] == [starts[0]] * 4
    assert starts[4:] == [starts[4]] * 4
    assert starts[0] != starts[4]


def test_starts_that_only_look_alike_are_found_out_and_the_batch_is_the_group() -> None:
    env = DummyVecEnv([RememberingEnv] * 4)
    assert not starts_are_equal(env, seed=0)
    model = make(env, n_groups=2, same_start=True)
    with pytest.warns(UserWarning, match="compared over the whole batch"):
        model.learn(1)
    assert model._group_size_now(8) == 8


# --- reward functions -------------------------------------------------------------------------------------------------


def pays_for_zero(state: torch.Tensor, action: torch.Tensor, next_state: torch.Tensor) -> torch.Tensor:
    assert state.shape == next_state.shape
    assert action.shape == (len(state), 1)
    assert ((next_state[:, 1] - state[:, 1]) == 1).all()  # also where the episode ended
    return 1.0 - action.float()


def test_a_reward_function_of_tensors_replaces_the_environments() -> None:
    model = GRPO(
        "MlpPolicy", DummyVecEnv([CounterEnv] * 2), reward_function=pays_for_zero, n_steps=40, seed=1, device="cpu",
        learning_rate=0.02, **{**SMALL, "n_epochs": 4},
    )  # fmt: skip
    records = Records()
    model.learn(600, callback=records)
    assert records.logged["rollout/n_transitions"] >= 40
    assert model.predict(np.zeros((1, 2), np.float32), deterministic=True)[0].tolist() == [0]


def test_a_named_reward_function_is_found() -> None:
    env = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
    model = make(env, reward_function="optimized_cartpole", advantage="reinforce", scaling="none", gamma=0.0)
    _, callback = model._setup_learn(100, Records())
    model.collect_rollouts(env, callback, model.rollout_buffer, 1)
    assert model.logger.name_to_value["rollout/advantage_std"] > 0  # The environment's own reward is always 1.


def test_a_reward_function_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(EnvError, match=r"<lambda>' must give finite numbers of shape \(\d+,\)"):
        make(DummyVecEnv([CounterEnv]), reward_function=lambda state, action, next_state: state).learn(1)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(AlgorithmError, match="`group_size` must be at least 2, got 1"):
        make(group_size=1)
    with pytest.raises(AlgorithmError, match="`advantage: linear` needs Box observations"):
        make(tiny(observations="dict"), "MultiInputPolicy", policy_kwargs={}, advantage="linear")
    with pytest.raises(AlgorithmError, match="`truncation: mask` needs `gamma` < 1"):
        make(truncation="mask", gamma=1.0)
    with pytest.raises(AlgorithmError, match="`dynamic_sampling` compares groups of episodes"):
        make(dynamic_sampling=True, advantage="actions")
    with pytest.raises(AlgorithmError, match="needs the environment's own Box observations"):
        make(VecNormalize(tiny()), reward_function=pays_for_zero)
