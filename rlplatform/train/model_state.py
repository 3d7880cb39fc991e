"""What SB3's zip does not bring back: the counters, windows, noise and pending log values of a model in mid-training.

The rule is by type, so that it holds for algorithms not written yet: plain data that is neither an option of the
constructor nor excluded is state. Tensors come from the zip (parameters, optimizers, variables), since copies would
break the aliases that SB3 keeps to a network's own buffers; options come from the spec, so that amendments hold.
"""

from __future__ import annotations

import inspect
from collections import deque
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr

_NOT_STATE = frozenset(
    {"env", "device", "start_time", "policy_class", "policy_kwargs", "observation_space", "action_space"}
)
_ALWAYS_STATE = ("_last_lstm_states", "action_noise")
"""State that the rule by type would miss: RecurrentPPO's tensors between rollouts, and the noise process' memory."""


def capture_model(model: BaseAlgorithm) -> dict[str, Any]:
    """Return the model's state besides its tensors and replay buffer; picklable, and not a copy: save it at once."""
    constructors = [vars(cls)["__init__"] for cls in type(model).__mro__ if "__init__" in vars(cls)]
    options = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    state = {key: value for key, value in vars(model).items() if key not in options | _NOT_STATE and _is_plain(value)}
    state |= {key: getattr(model, key) for key in _ALWAYS_STATE if getattr(model, key, None) is not None}
    logger = model.logger
    pending = (dict(logger.name_to_value), dict(logger.name_to_count), dict(logger.name_to_excluded))
    return {"attributes": state, "log": pending, "action_space_rng": model.action_space.np_random.bit_generator.state}


def restore_model(model: BaseAlgorithm, zip_path: str, state: dict[str, Any]) -> None:
    """Put the tensors of a zip and a captured state into a freshly built model of the same spec."""
    _, params, variables = load_from_zip_file(zip_path, device=model.device)
    model.set_parameters(params, exact_match=True, device=model.device)
    for name, value in (variables or {}).items():
        recursive_setattr(model, f"{name}.data", value.data)
    for key, value in state["attributes"].items():
        setattr(model, key, value)
    model._num_timesteps_at_start = model.num_timesteps  # time/fps counts this attempt only
    values, counts, excluded = state["log"]
    model.logger.name_to_value.update(values)
    model.logger.name_to_count.update(counts)
    model.logger.name_to_excluded.update(excluded)
    model.action_space.np_random.bit_generator.state = state["action_space_rng"]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (dict, list, tuple, deque)):
        return all(_is_plain(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic))
