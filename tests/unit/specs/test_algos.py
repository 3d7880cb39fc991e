"""Every algorithm's spec: options, ranges, shapes of values, and the errors of bad ones. Nothing here imports torch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from rlplatform.algos.catalog import algorithm_names, algorithms, find_algorithm
from rlplatform.errors import SpecError, UnknownNameError
from rlplatform.specs.algo_options import NormalNoise, OrnsteinUhlenbeckNoise, TrainFrequency
from rlplatform.specs.algos import parse_algo, spec_class
from rlplatform.specs.off_policy import TD3Spec
from rlplatform.specs.on_policy import PPOSpec, nearest_divisors
from rlplatform.specs.schedules import ScheduleSpec

NAMES = sorted(algorithms())


def test_the_catalog_holds_what_is_promised() -> None:
    promised = "ppo a2c dqn sac td3 ddpg tqc qrdqn trpo crossq ars recurrent_ppo maskable_ppo grpo"
    assert set(promised.split()) <= set(algorithm_names())


@pytest.mark.parametrize(
    ("written", "name"),
    [("PPO", "ppo"), ("QR-DQN", "qrdqn"), ("RecurrentPPO", "recurrent_ppo"), ("MaskablePPO", "maskable_ppo"),
     ("CrossQ", "crossq"), ("maskable-ppo", "maskable_ppo")],
)  # fmt: skip
def test_a_name_is_found_in_any_spelling(written: str, name: str) -> None:
    assert find_algorithm(written).name == name
    assert parse_algo({"name": written}).name == name


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown algorithm 'pppo'\. Did you mean .*'ppo'"):
        find_algorithm("pppo")
    with pytest.raises(SpecError, match=r"`algorithm\.name`: Unknown algorithm 'pppo'"):
        parse_algo("pppo")


@pytest.mark.parametrize("value", [{}, {"name": 3}, {"learning_rate": 0.1}])
def test_a_missing_name_is_an_error(value: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"`algorithm\.name` must be an algorithm's name"):
        parse_algo(value)


@pytest.mark.parametrize("name", NAMES)
def test_every_spec_survives_json_and_pickle(name: str) -> None:
    spec = parse_algo(name)
    assert parse_algo(spec.model_dump(mode="json")) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert parse_algo(spec.model_dump(mode="json")).digest() == spec.digest()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented(name: str) -> None:
    cls = spec_class(name)
    for option, field in cls.model_fields.items():
        if option == "name":
            continue
        if option == "policy_kwargs":
            kwargs = field.annotation
            assert isinstance(kwargs, type)
            assert kwargs.__doc__
            undocumented = [key for key, part in getattr(kwargs, "model_fields", {}).items() if not part.description]
            assert undocumented == []
        else:
            assert field.description, option


@pytest.mark.parametrize("name", NAMES)
def test_every_amendable_option_exists(name: str) -> None:
    cls = spec_class(name)
    assert "learning_rate" in cls.amendable
    assert cls.amendable <= set(cls.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_named_at_its_place(name: str) -> None:
    with pytest.raises(ValidationError, match=r"`learning_rat` is not an option of .*mean 'learning_rate'") as info:
        parse_algo({"name": name, "learning_rat": 0.1})
    assert info.value.errors()[0]["loc"] == ("learning_rat",)


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("ppo", "clip_range", 1.5, r"must be in \(0, 1\], got 1\.5"),
        ("ppo", "learning_rate", -1, "greater than 0"),
        ("ppo", "learning_rate", "fast", "must be a number, .*got 'fast'"),
        ("ppo", "learning_rate", True, "must be a number"),
        ("ppo", "n_steps", 0, "greater than or equal to 1"),
        ("ppo", "n_steps", "many", "valid integer"),
        ("ppo", "gamma", 1.1, "less than or equal to 1"),
        ("ppo", "batch_size", 1, "`batch_size` must be > 1"),
        ("ppo", "policy", "MlpLstmPolicy", "'auto', 'MlpPolicy'"),
        ("ppo", "policy_kwargs", {"net_arch": "big"}, "must be a list of units, or"),
        ("ppo", "policy_kwargs", {"squash_output": True}, "`policy_kwargs.squash_output` needs `use_sde"),
        ("a2c", "policy_kwargs", {"optimizer_kwargs": {"eps": 1e-3}}, "ignored with `use_rms_prop"),
        ("recurrent_ppo", "policy_kwargs", {"shared_lstm": True}, "needs `enable_critic_lstm: false`"),
        ("dqn", "exploration_fraction", 0, "greater than 0"),
        ("dqn", "optimize_memory_usage", True, "handle_timeout_termination: false"),
        ("sac", "ent_coef", "automatic", "should match pattern"),
        ("sac", "train_freq", {"n": 1, "unit": "hour"}, "'step' or 'episode'"),
        ("sac", "train_freq", "often", r"must be a number of steps, or \{n, unit\}"),
        ("td3", "action_noise", {"type": "pink", "sigma": 0.1}, "must be `normal` or `ornstein_uhlenbeck`"),
        ("td3", "action_noise", {"sigma": -0.1}, "must be ≥ 0, got -0.1"),
        ("tqc", "top_quantiles_to_drop_per_net", 25, "must be below `policy_kwargs.n_quantiles` = 25, got 25"),
        ("grpo", "group_size", 1, "greater than or equal to 2"),
        ("grpo", "ent_coef", -0.1, "greater than or equal to 0"),
        ("grpo", "ent_coef", "some", "must be a number, .*got 'some'"),
        ("grpo", "log_std_min", 1.0, "`log_std_min` must be at most `log_std_max`, got 1.0 > 0.5"),
        ("ars", "n_top", 9, "`n_top` must be at most `n_delta` = 8, got 9"),
    ],
)
def test_a_bad_value_says_what_is_allowed(name: str, option: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_algo({"name": name, option: value})


def test_linear_ars_has_no_layers() -> None:
    with pytest.raises(ValidationError, match="does not apply to `LinearPolicy`"):
        parse_algo({"name": "ars", "policy": "LinearPolicy", "policy_kwargs": {"net_arch": [8]}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic_sampling": True, "advantage": "actions"}, "`dynamic_sampling` compares groups of episodes"),
        ({"truncation": "mask", "gamma": 1.0}, "`truncation: mask` needs `gamma` < 1"),
    ],
)
def test_options_of_grpo_that_exclude_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_algo({"name": "grpo", **options})


def test_memory_saving_and_n_step_returns_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="`optimize_memory_usage` needs `n_steps` = 1, got 3"):
        parse_algo(
            {"name": "dqn", "optimize_memory_usage": True, "n_steps": 3,
             "replay_buffer_kwargs": {"handle_timeout_termination": False}}
        )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.001, 0.001),
        ("1e-3", 0.001),
        ("lin_1e-3", ScheduleSpec(initial=0.001)),
        ({"schedule": "linear", "initial": "1e-3", "final": 1e-5}, ScheduleSpec(initial=0.001, final=1e-5)),
        (
            {"schedule": "exponential", "initial": 0.1, "final": 0.01, "end_fraction": 0.5},
            ScheduleSpec(schedule="exponential", initial=0.1, final=0.01, end_fraction=0.5),
        ),
    ],
)
def test_a_learning_rate_is_a_number_or_a_schedule(value: Any, expected: Any) -> None:
    assert parse_algo({"name": "ppo", "learning_rate": value}) == PPOSpec(learning_rate=expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"initial": 0}, "greater than 0"),
        ({"initial": 0.1, "schedule": "exponential"}, "`final` of an exponential schedule must be > 0"),
        ({"initial": 0.1, "schedule": "cosine"}, "'constant', 'linear' or 'exponential'"),
        ("lin_fast", "valid number"),
    ],
)
def test_a_bad_schedule_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_algo({"name": "ppo", "learning_rate": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4, 4),
        ([2, "episode"], TrainFrequency(n=2, unit="episode")),
        ({"n": 8, "unit": "step"}, TrainFrequency(n=8)),
    ],
)
def test_a_training_frequency_is_a_number_or_has_a_unit(value: Any, expected: Any) -> None:
    assert parse_algo({"name": "sac", "train_freq": value}).model_dump()["train_freq"] == (
        expected if isinstance(expected, int) else expected.model_dump()
    )


def test_noise_is_chosen_by_type() -> None:
    normal = parse_algo({"name": "td3", "action_noise": {"type": "normal", "sigma": "0.1"}})
    walk = parse_algo({"name": "td3", "action_noise": {"type": "ornstein_uhlenbeck", "sigma": [0.1, 0.2]}})
    assert normal == TD3Spec(action_noise=NormalNoise(sigma=0.1))
    assert walk == TD3Spec(action_noise=OrnsteinUhlenbeckNoise(sigma=(0.1, 0.2)))


@pytest.mark.parametrize("name", ["ppo", "recurrent_ppo", "maskable_ppo", "trpo"])
def test_a_batch_that_does_not_fit_the_rollout_gets_the_nearest_sizes(name: str) -> None:
    spec = parse_algo({"name": name, "n_steps": 32, "batch_size": 100})
    with pytest.raises(SpecError, match=r"32 x 8 = 256 transitions, got 100\. Use 64 or 128"):
        spec.check_n_envs(8)


@pytest.mark.parametrize(("n_steps", "n_envs", "batch_size"), [(32, 8, 256), (2048, 1, 64), (16, 16, 64)])
def test_a_batch_that_fits_is_accepted(n_steps: int, n_envs: int, batch_size: int) -> None:
    PPOSpec(n_steps=n_steps, batch_size=batch_size).check_n_envs(n_envs)


@pytest.mark.parametrize(
    ("total", "size", "expected"),
    [(256, 100, [64, 128]), (256, 300, [256]), (7, 3, [7]), (1, 5, [1]), (12, 5, [4, 6]), (10**12, 3, [2, 4])],
)
def test_nearest_divisors(total: int, size: int, expected: list[int]) -> None:
    assert nearest_divisors(total, size) == expected


@pytest.mark.parametrize(
    ("options", "n_envs", "message"),
    [
        ({"name": "a2c", "n_steps": 1, "normalize_advantage": True}, 1, "must be > 1 with `normalize_advantage`"),
        ({"name": "grpo", "group_size": 4}, 8, r"at most n_groups x group_size = 4 episodes of an update, got 8"),
        ({"name": "sac", "train_freq": [1, "episode"]}, 2, r"needs `env\.n_envs` = 1, got 2"),
        ({"name": "dqn", "buffer_size": 4}, 8, r"must hold n_steps x n_envs = 1 x 8 transitions, got 4"),
    ],
)
def test_options_must_fit_the_number_of_environments(options: dict[str, Any], n_envs: int, message: str) -> None:
    spec = parse_algo(options)
    with pytest.raises(SpecError, match=message):
        spec.check_n_envs(n_envs)


def test_checking_a_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rlplatform.specs.algos import parse_algo\n"
        "from rlplatform.algos.catalog import algorithm_names\n[parse_algo(name) for name in algorithm_names()[:14]]\n"
        "print([name for name in ('numpy', 'torch', 'gymnasium', 'ray', 'stable_baselines3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
