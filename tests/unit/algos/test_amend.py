"""An amended live model has the options of one that was built so, and what cannot change is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from rlplatform.algos.amend import apply_amendment
from rlplatform.algos.build import build_model
from rlplatform.algos.catalog import algorithms, find_algorithm
from rlplatform.errors import SpecError
from rlplatform.specs.algos import AlgoSpec, parse_algo, spec_class
from tests.unit.algos.helpers import small_spec, tiny_envs

NAMES = sorted(algorithms())
AMENDABLE = [(name, option) for name in NAMES for option in sorted(spec_class(name).amendable)]
FIXED = [
    (name, option) for name in NAMES for option in ("n_steps", "buffer_size") if option in spec_class(name).model_fields
]
NEW: dict[str, Any] = {
    "learning_rate": {"schedule": "linear", "initial": 0.5, "final": 0.1},
    "clip_range": {"schedule": "exponential", "initial": 0.5, "final": 0.1},
    "clip_range_high": 0.9,
    "clip_range_vf": 0.7,
    "delta_std": 0.3,
    "gamma": 0.5,
    "gae_lambda": 0.6,
    "normalize_advantage": {True: False, False: True},
    "batch_size": 8,
    "n_epochs": 2,
    "ent_coef": 0.25,
    "vf_coef": 0.75,
    "max_grad_norm": 3.0,
    "target_kl": 0.5,
    "learning_starts": 20,
    "train_freq": 6,
    "gradient_steps": 2,
    "tau": 0.7,
    "target_update_interval": 5,
    "exploration_fraction": 0.5,
    "exploration_initial_eps": 0.9,
    "exploration_final_eps": 0.4,
    "target_entropy": -4.0,
    "use_sde_at_warmup": True,
    "policy_delay": 4,
    "target_policy_noise": 0.4,
    "target_noise_clip": 0.8,
    "n_top": 1,
    "alive_bonus_offset": -1.0,
    "n_eval_episodes": 2,
    "cg_max_steps": 5,
    "cg_damping": 0.2,
    "line_search_shrinking_factor": 0.5,
    "line_search_max_iter": 3,
    "n_critic_updates": 2,
    "sub_sampling_factor": 2,
}


def with_option(spec: AlgoSpec, option: str, value: Any) -> AlgoSpec:
    return parse_algo({**spec.model_dump(mode="json"), option: value})


def built(spec: AlgoSpec) -> BaseAlgorithm:
    return build_model(spec, tiny_envs(find_algorithm(spec.name)), seed=0, device="cpu")


def options_in_use(model: BaseAlgorithm) -> dict[str, Any]:
    """Return every plain value and schedule that a model and its buffers hold."""
    found: dict[str, Any] = {"noise": repr(model.action_noise)}
    buffers = [getattr(model, name, None) for name in ("rollout_buffer", "replay_buffer")]
    for place, holder in enumerate([model, *buffers]):
        for key, value in (vars(holder) if holder is not None else {}).items():
            if isinstance(value, (bool, int, float, str, TrainFreq)) or value is None:
                found[f"{place}.{key}"] = value
            elif isinstance(value, (FloatSchedule, LinearSchedule)):
                found[f"{place}.{key}"] = [value(progress) for progress in (1.0, 0.5, 0.0)]
            elif key == "ent_coef_tensor":
                found[f"{place}.{key}"] = value.item()
    return found


@pytest.mark.parametrize(("name", "option"), AMENDABLE)
def test_an_amended_model_has_the_options_of_one_built_so(name: str, option: str) -> None:
    first = {"ent_coef": 0.1} if name in ("sac", "tqc", "crossq") and option == "ent_coef" else {}
    old = small_spec(name, **first, **({"n_delta": 2} if option == "n_top" else {}))
    value = NEW[option]
    new = with_option(old, option, value[getattr(old, option)] if option == "normalize_advantage" else value)
    model, expected = built(old), options_in_use(built(new))
    assert options_in_use(model) != expected
    apply_amendment(model, old, new)
    assert options_in_use(model) == expected


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_a_new_discount_reaches_n_step_returns(name: str) -> None:
    old = small_spec(name, n_steps=3)
    new = with_option(old, "gamma", 0.5)
    model = built(old)
    apply_amendment(model, old, new)
    assert options_in_use(model) == options_in_use(built(new))


@pytest.mark.parametrize("name", ["ppo", "td3", "ars"])
def test_an_amended_model_goes_on_training(name: str) -> None:
    old = small_spec(name)
    new = with_option(old, "learning_rate", 0.0123)
    model = built(old)
    model.learn(32)
    apply_amendment(model, old, new)
    model.learn(32, reset_num_timesteps=False)
    parts: list[Any] = [model.policy, getattr(model, "actor", None), getattr(model, "critic", None)]
    optimizers = [part.optimizer for part in parts if hasattr(part, "optimizer")]
    assert [group["lr"] for optimizer in optimizers for group in optimizer.param_groups] == [0.0123] * len(optimizers)
    assert model.lr_schedule(0.5) == 0.0123


@pytest.mark.parametrize(("name", "option"), FIXED)
def test_what_cannot_change_is_refused_by_name_and_nothing_changes(name: str, option: str) -> None:
    old = small_spec(name)
    new = with_option(with_option(old, option, getattr(old, option) * 2), "learning_rate", 0.5)
    model = built(old)
    before = options_in_use(model)
    with pytest.raises(SpecError, match=rf"`algorithm\.{option}` cannot change on a live model.*`learning_rate`"):
        apply_amendment(model, old, new)
    assert options_in_use(model) == before


def test_a_batch_must_still_fit() -> None:
    old = small_spec("ppo")
    with pytest.raises(SpecError, match=r"`algorithm\.batch_size` must divide the rollout"):
        apply_amendment(built(old), old, with_option(old, "batch_size", 7))


@pytest.mark.parametrize(("before", "after"), [("auto", 0.1), (0.1, "auto"), ("auto", "auto_0.5")])
def test_a_learned_entropy_coefficient_stays_learned(before: Any, after: Any) -> None:
    old = small_spec("sac", ent_coef=before)
    with pytest.raises(SpecError, match=r"`algorithm\.ent_coef` can change .* only from number to number"):
        apply_amendment(built(old), old, with_option(old, "ent_coef", after))


def test_an_algorithm_cannot_become_another() -> None:
    old = small_spec("ppo")
    with pytest.raises(SpecError, match="A `ppo` that has begun cannot become `a2c`"):
        apply_amendment(built(old), old, small_spec("a2c"))


def test_automatic_target_entropy_comes_back() -> None:
    old = small_spec("sac", target_entropy=-5.0)
    model = built(old)
    apply_amendment(model, old, with_option(old, "target_entropy", "auto"))
    assert getattr(model, "target_entropy", np.nan) == -2.0
