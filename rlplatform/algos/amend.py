"""Changing the options of a live model, as an amendment of its run or a step of population based training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from rlplatform.algos.values import schedule
from rlplatform.specs.algo_options import TrainFrequency
from rlplatform.specs.algos import AlgoSpec

Setter = Callable[[Any, str, Any], None]
"""Puts the new value of one option into a model: ``(model, option, value)``."""


def apply_amendment(model: BaseAlgorithm, old: AlgoSpec, new: AlgoSpec) -> None:
    """Change a live model so that its next rollout and update follow another spec; all options change, or none.

    Args:
        model: Built from ``old``.
        old: What the model follows now.
        new: What it is to follow.

    Raises:
        SpecError: If something differs that cannot change, or the options no longer fit the number of environments.
    """
    old.check_amendment(new)
    new.check_n_envs(model.n_envs)
    for option in old.changed_options(new):
        setter = _SETTERS.get(option, _set_attribute)
        setter(model, option, getattr(new, option))


def _set_attribute(model: Any, option: str, value: Any) -> None:
    setattr(model, option, value)


def _set_learning_rate(model: Any, option: str, value: Any) -> None:
    model.learning_rate = schedule(value)
    model._setup_lr_schedule()  # The optimizers' groups follow at the start of the next update.


def _set_schedule(model: Any, option: str, value: Any) -> None:
    setattr(model, option, None if value is None else FloatSchedule(schedule(value)))


def _set_delta_std(model: Any, option: str, value: Any) -> None:
    model.delta_std_schedule = FloatSchedule(schedule(value))


def _set_n_top(model: Any, option: str, value: Any) -> None:
    model.n_top = model.n_delta if value is None else value


def _set_discount(model: Any, option: str, value: Any) -> None:
    """Set ``gamma`` or ``gae_lambda``, of which rollout buffers and n-step replay buffers hold a copy."""
    setattr(model, option, value)
    for buffer in (getattr(model, "rollout_buffer", None), getattr(model, "replay_buffer", None)):
        if hasattr(buffer, option):
            setattr(buffer, option, value)
    if option in getattr(model, "replay_buffer_kwargs", {}):
        model.replay_buffer_kwargs[option] = value


def _set_train_freq(model: Any, option: str, value: Any) -> None:
    frequency = value if isinstance(value, TrainFrequency) else TrainFrequency(n=value)
    model.train_freq = TrainFreq(frequency.n, TrainFrequencyUnit(frequency.unit))


def _set_exploration(model: Any, option: str, value: Any) -> None:
    setattr(model, option, value)
    model.exploration_schedule = LinearSchedule(
        model.exploration_initial_eps, model.exploration_final_eps, model.exploration_fraction
    )


def _set_ent_coef(model: Any, option: str, value: Any) -> None:
    model.ent_coef = schedule(value)
    if hasattr(model, "ent_coef_tensor"):
        model.ent_coef_tensor = torch.tensor(float(value), device=model.device)


def _set_target_entropy(model: Any, option: str, value: Any) -> None:
    model.target_entropy = float(-np.prod(model.action_space.shape)) if value == "auto" else value


_SETTERS: dict[str, Setter] = {
    "learning_rate": _set_learning_rate,
    "clip_range": _set_schedule,
    "clip_range_vf": _set_schedule,
    "delta_std": _set_delta_std,
    "n_top": _set_n_top,
    "gamma": _set_discount,
    "gae_lambda": _set_discount,
    "train_freq": _set_train_freq,
    "exploration_fraction": _set_exploration,
    "exploration_initial_eps": _set_exploration,
    "exploration_final_eps": _set_exploration,
    "ent_coef": _set_ent_coef,
    "target_entropy": _set_target_entropy,
}
"""Options that a model holds elsewhere than in an attribute of the same name."""
