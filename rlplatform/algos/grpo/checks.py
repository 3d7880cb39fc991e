"""What GRPO's options need, checked before anything is collected, and what it warns about."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.algos.grpo.counterfactual import Counterfactual
from rlplatform.errors import AlgorithmError

if TYPE_CHECKING:
    from rlplatform.algos.grpo.algorithm import GRPO


def check_options(model: GRPO, env: VecEnv) -> None:
    """Check that options fit each other and the environments.

    Raises:
        AlgorithmError: They do not.
    """
    is_box = isinstance(model.observation_space, spaces.Box)
    if model.group_size < 2:
        raise AlgorithmError(f"`group_size` must be at least 2, got {model.group_size}: one episode has no peers.")
    if model.dynamic_sampling and model.advantage == "actions":
        raise AlgorithmError("`dynamic_sampling` compares groups of episodes, `advantage: actions` has none.")
    if model.truncation == "mask" and model.gamma == 1:
        raise AlgorithmError("`truncation: mask` needs `gamma` < 1: undiscounted, every step feels the limit.")
    if model.advantage == "linear" and not is_box:
        raise AlgorithmError(
            f"`advantage: linear` needs Box observations, got {model.observation_space}. Use `advantage: timestep`."
        )
    if model.advantage == "actions":
        Counterfactual(env, model.action_horizon, model.reward_function)
    normalize = model.get_vec_normalize_env()
    if model.reward_function is not None and (not is_box or (normalize is not None and normalize.norm_obs)):
        raise AlgorithmError(
            "`reward_function` needs the environment's own Box observations. Leave them unnormalised, or shape the "
            "reward in the environment."
        )


def warn_of_unequal_starts() -> None:
    """Say that groups cannot start in the same state."""
    warnings.warn(
        "Environments reset with the same seed are not in the same state here, so that `same_start` cannot hold: "
        "episodes are compared over the whole batch. Set `same_start=False`.",
        stacklevel=3,
    )


def warn_of_equal_actions(horizon: int) -> None:
    """Say that no action made a difference."""
    warnings.warn(
        "Every action led to the same reward in every state, so that there is nothing to learn from: the reward does "
        f"not depend on the action within `action_horizon` = {horizon} steps. Raise it, or use `advantage='timestep'`.",
        stacklevel=3,
    )
