"""Reward functions of the user, as the reward that GRPO trains on.

A reward function is ``f(state, action, next_state) -> reward`` on batches of torch tensors, as in sb3-grpo (kechirojp,
2025): ``[batch, …]``, ``[batch, 1]`` for Discrete actions, ``[batch, …]`` in, ``[batch]`` or ``[batch, 1]`` out. The
name of one of the catalog is taken as well; those work on NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlplatform.envs.rewards import batch_rewards, load_reward

RewardFunction = Callable[[Any, Any, Any], Any]
"""``f(state, action, next_state)``, batched."""


def evaluate_rewards(
    function: RewardFunction | str, obs: NDArray[Any], actions: NDArray[Any], next_obs: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the rewards of a batch, ``[batch]``.

    Args:
        function: Of tensors, or the name of a catalog's function of arrays.
        obs: ``[batch, …]``.
        actions: ``[batch, *action_shape]``.
        next_obs: ``[batch, …]``, where an episode ended its last observation.

    Raises:
        EnvError: It does not give one finite number for each row.
        UnknownNameError: No reward function has that name.
    """
    if isinstance(function, str):
        return batch_rewards(load_reward(function), obs, actions, next_obs, len(obs))
    columns = actions.reshape(len(actions), -1)
    with torch.no_grad():
        given = function(torch.as_tensor(obs), torch.as_tensor(columns), torch.as_tensor(next_obs))
    rewards = torch.as_tensor(given).detach().cpu().numpy()
    flat = rewards.reshape(-1) if rewards.shape in ((len(obs), 1), (len(obs),)) else rewards
    return batch_rewards(_Given(function, flat), obs, actions, next_obs, len(obs))


class _Given:
    """Rewards that are there already, under the name of the function that gave them."""

    def __init__(self, function: RewardFunction, rewards: NDArray[Any]) -> None:
        self.__qualname__ = getattr(function, "__qualname__", repr(function))
        self.rewards = rewards

    def __call__(self, *_: Any) -> NDArray[Any]:
        return self.rewards
