"""From the episodes of an update to what its gradient steps read, and what is worth knowing about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlplatform.algos.grpo import advantages as adv
from rlplatform.algos.grpo.buffer import Flat

Scaling = Literal["batch", "group", "none"]
Truncation = Literal["finite", "mask"]
Weighting = Literal["transition", "episode"]

_BASELINES = ("timestep", "linear", "reinforce")
"""Those that subtract a prediction from the return-to-go."""
_NEGLIGIBLE = 0.05
"""`mask` leaves out the steps before a truncation whose return misses more than this share."""


@dataclass(frozen=True)
class Options:
    """How advantages are made."""

    advantage: adv.AdvantageName
    scaling: Scaling
    weighting: Weighting
    truncation: Truncation
    alive_peers_only: bool
    gamma: float


@dataclass(frozen=True)
class Batch:
    """The steps of one update, all as tensors ``[steps, …]`` on the policy's device."""

    observations: Any
    """A tensor, or for Dict observations a dict of them."""
    actions: Tensor
    log_probs: Tensor
    """Of the policy that acted."""
    advantages: Tensor
    """``[steps]``; with `actions`, one for each action, ``[steps, n_actions]``."""
    weights: Tensor
    """Of each step in the loss, 1 on average; 0 leaves it out."""
    all_log_probs: Tensor | None = None
    """With `actions`: of every action, ``[steps, n_actions]``."""

    def __len__(self) -> int:
        return len(self.log_probs)

    def minibatches(self, batch_size: int) -> Iterator[Batch]:
        """Yield parts in random order, all of nearly `batch_size` steps: a short rest would make noisy steps."""
        n_parts = max(1, len(self) // batch_size)
        for rows in torch.as_tensor(np.random.permutation(len(self))).tensor_split(n_parts):
            yield self.take(rows.to(self.log_probs.device))

    def take(self, rows: Tensor) -> Batch:
        """Return some of the steps."""
        obs = self.observations
        return Batch(
            {key: part[rows] for key, part in obs.items()} if isinstance(obs, dict) else obs[rows],
            self.actions[rows],
            self.log_probs[rows],
            self.advantages[rows],
            self.weights[rows],
            None if self.all_log_probs is None else self.all_log_probs[rows],
        )


def make_batch(
    flat: Flat, group_size: int, options: Options, device: torch.device
) -> tuple[Batch, Mapping[str, float]]:
    """Make the batch of one update.

    Args:
        flat: The steps of its episodes; groups stand one after the other.
        group_size: Episodes of a group.
        options: How advantages are made.
        device: Where the tensors go.

    Returns:
        The batch, and diagnostics by metric key.
    """
    columns, obs = flat.columns, flat.columns["observations"]
    episodes = _episodes(flat, group_size, options)
    mask = episodes.mask
    if options.advantage == "actions":
        relative, found = _of_actions(columns["values"], options.scaling)
    else:
        padded = adv.ADVANTAGES[options.advantage](episodes)
        scaling = "none" if (options.advantage, options.scaling) == ("process", "group") else options.scaling
        relative = adv.scale(padded, episodes, scaling)[mask]
        found = {
            "degenerate_group_fraction": float(adv.degenerate_groups(padded, episodes).mean()),
        } | _statistics(padded[mask])
        if options.advantage in _BASELINES:
            found["explained_variance"] = adv.explained_variance(padded, episodes)
    weights = _weights(flat, mask, options)
    batch = Batch(
        {key: _tensor(part, device) for key, part in obs.items()} if isinstance(obs, dict) else _tensor(obs, device),
        _tensor(columns["actions"], device),
        _tensor(columns["log_probs"], device),
        _tensor(relative.astype(np.float32), device),
        _tensor(weights.astype(np.float32), device),
        _tensor(columns["all_log_probs"], device) if "all_log_probs" in columns else None,
    )
    found |= {
        "alive_peers": adv.mean_alive_peers(episodes),
        "truncated_fraction": float(flat.truncated.mean()),
        "carried_fraction": float(flat.carried.mean()),
        "n_transitions": float(len(batch)),
        "n_episodes": float(len(flat.lengths)),
    }
    return batch, {f"rollout/{key}": value for key, value in found.items() if math.isfinite(value)}


def useful_episodes(flat: Flat, group_size: int, options: Options) -> list[int]:
    """Return the positions of the episodes whose group is not degenerate; of all where every group is.

    Source: dynamic sampling, Yu et al. (2025), arXiv:2503.14476, section 3.2.
    """
    episodes = _episodes(flat, group_size, options)
    degenerate = adv.degenerate_groups(adv.ADVANTAGES[options.advantage](episodes), episodes)
    kept = np.flatnonzero(np.repeat(~degenerate, group_size))
    return [int(i) for i in kept] or list(range(len(flat.lengths)))


def _episodes(flat: Flat, group_size: int, options: Options) -> adv.Episodes:
    rewards, mask = adv.pad(flat.columns["rewards"].astype(np.float64), flat.lengths)
    obs = flat.columns["observations"]
    return adv.Episodes(
        rewards, mask, group_size, options.gamma, options.alive_peers_only,
        group_deviation=options.scaling == "group",
        observations=obs.reshape(len(obs), -1) if options.advantage == "linear" else None,
    )  # fmt: skip


def _of_actions(values: NDArray[np.float32], scaling: Scaling) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Return what each action gains over the mean of all actions of its state; the group is the state's actions."""
    relative = values.astype(np.float64)
    relative -= relative.mean(axis=1, keepdims=True)
    largest = max(float(np.abs(values).max(initial=0.0)), 1e-8)
    relative[np.abs(relative) <= 1e-6 * largest] = 0.0  # float32 values: what is left of equal ones
    found = {"degenerate_group_fraction": float((relative == 0).all(axis=1).mean())} | _statistics(relative)
    if scaling != "none":
        axis = 1 if scaling == "group" else None
        deviation = relative.std(axis=axis, keepdims=True)
        relative = relative / np.maximum(deviation, adv.SMALLEST_DEVIATION)
    return relative, found


def _statistics(advantages: NDArray[np.float64]) -> dict[str, float]:
    return {
        "advantage_mean": float(advantages.mean()),
        "advantage_std": float(advantages.std()),
        "advantage_min": float(advantages.min()),
        "advantage_max": float(advantages.max()),
    }


def _weights(flat: Flat, mask: adv.Mask, options: Options) -> NDArray[np.float64]:
    weights = np.ones(mask.shape)
    if options.weighting == "episode":
        weights /= flat.lengths[:, None]
    if options.truncation == "mask":
        horizon = math.ceil(math.log(_NEGLIGIBLE) / math.log(options.gamma)) if 0 < options.gamma < 1 else 1
        near_end = np.arange(mask.shape[1])[None, :] >= (flat.lengths - horizon)[:, None]
        left = np.where(near_end & flat.truncated[:, None], 0.0, weights)
        # Where every episode is cut off early, there is nothing better to learn from.
        weights = left if left[mask].any() else weights
    kept = weights[mask]
    return np.asarray(kept / kept.mean())


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), device=device)
