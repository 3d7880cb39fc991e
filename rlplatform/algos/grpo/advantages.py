"""Advantages from whole episodes, without a value network: pure functions on padded arrays.

Arrays are ``[n_episodes, max_length]`` float64, zero where an episode has ended; ``mask`` is True where it runs.
Episodes of one group stand one after the other, ``group_size`` of them. What a function returns is zero in the padding.

The advantage of an action says how much better the rest of its episode went than what its *peers*, the other episodes
of its group, achieved; by which measure, is the name of a function of :data:`ADVANTAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ZERO = 1e-9
"""Advantages below this fraction of the largest return are rounding."""
SMALLEST_DEVIATION = 1e-3
"""Advantages are never divided by less: what has hardly any spread must not become all noise."""
_RIDGE = 1e-5
_MOST_PRODUCTS = 32
"""Observation dimensions up to which the linear baseline also sees the products of any two."""


@dataclass(frozen=True)
class Episodes:
    """What the advantages of one update are made from."""

    rewards: Array
    """``[n_episodes, max_length]``, zero in the padding."""
    mask: Mask
    """``[n_episodes, max_length]``: the episode runs at this step."""
    group_size: int
    """Episodes of a group."""
    gamma: float
    """Discount, in [0, 1]."""
    alive_peers_only: bool = False
    """`timestep`: compare only with peers that still run, instead of counting those that have ended as zero."""
    group_deviation: bool = False
    """`process`: divide rewards by their deviation within the group."""
    observations: NDArray[Any] | None = None
    """`linear`: ``[mask.sum(), dim]``, all steps of the first episode, then of the second, and so on."""

    def by_group(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a view ``[n_groups, group_size, …]`` of an array over episodes."""
        return values.reshape(-1, self.group_size, *values.shape[1:])


def pad(values: NDArray[Any], lengths: NDArray[np.int64]) -> tuple[Array, Mask]:
    """Spread the steps of all episodes, one after the other, over a padded array.

    Args:
        values: ``[lengths.sum()]``.
        lengths: Steps of each episode, ``[n_episodes]``.

    Returns:
        The padded array and its mask.
    """
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    padded = np.zeros(mask.shape)
    padded[mask] = values
    return padded, mask


def returns_to_go(rewards: Array, gamma: float) -> Array:
    """Return the discounted sum of each step's and all later rewards: ``G[t] = r[t] + gamma G[t + 1]``."""
    returns = rewards.copy()
    for t in range(rewards.shape[1] - 2, -1, -1):
        returns[:, t] += gamma * returns[:, t + 1]
    return returns


# --- advantages by name -----------------------------------------------------------------------------------------------


def outcome(episodes: Episodes) -> Array:
    """Give every step of an episode the episode's discounted return minus the group's mean.

    Source: Shao et al. (2024), arXiv:2402.03300, section 4.1.2, outcome supervision; dividing by the deviation is
    :func:`scale`'s part, and optional (Liu et al., 2025, arXiv:2503.20783).
    """
    totals = episodes.by_group(returns_to_go(episodes.rewards, episodes.gamma)[:, 0])
    relative = (totals - totals.mean(axis=1, keepdims=True)).reshape(-1, 1)
    return np.asarray(np.where(episodes.mask, relative, 0.0))


def process(episodes: Episodes) -> Array:
    """Centre rewards over all steps of the group, and sum up what follows each step.

    Source: Shao et al. (2024), arXiv:2402.03300, section 4.1.3, process supervision, with a discount. There the
    rewards are also divided by their deviation: `group_deviation`.
    """
    rewards, mask = episodes.by_group(episodes.rewards), episodes.by_group(episodes.mask)
    steps = mask.sum(axis=(1, 2), keepdims=True)
    centred = np.where(mask, rewards - rewards.sum(axis=(1, 2), keepdims=True) / steps, 0.0)
    if episodes.group_deviation:
        deviation = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True) / steps)
        centred = centred / np.maximum(deviation, SMALLEST_DEVIATION)
    return returns_to_go(centred.reshape(episodes.rewards.shape), episodes.gamma)


def timestep(episodes: Episodes) -> Array:
    """Compare each step's return-to-go with the mean of the peers' at the same step of their episodes.

    The mean leaves the episode itself out, so it does not depend on its actions and the gradient stays unbiased. A
    peer that has ended collects nothing more: it counts as zero, or with `alive_peers_only` not at all, and then a step
    without peers has no advantage.

    Source: for the baseline of all others, Kool et al. (2019) and Ahmadian et al. (2024), arXiv:2402.14740 (RLOO); per
    time step, as in Group Policy Gradient, arXiv:2510.03679, with f(s, t) = t.
    """
    returns = returns_to_go(episodes.rewards, episodes.gamma)
    grouped, mask = episodes.by_group(returns), episodes.by_group(episodes.mask)
    others = grouped.sum(axis=1, keepdims=True) - grouped
    if episodes.alive_peers_only:
        n_others = mask.sum(axis=1, keepdims=True) - 1
        relative = np.where(n_others > 0, grouped - others / np.maximum(n_others, 1), 0.0)
    else:
        relative = grouped - others / max(episodes.group_size - 1, 1)
    return np.asarray(np.where(episodes.mask, relative.reshape(returns.shape), 0.0))


def linear(episodes: Episodes) -> Array:
    """Subtract from each return-to-go a linear regression on features of the observation and the time.

    The features are the observation, its squares and products, and the time to the third power. Half of the episodes
    is predicted from the other half, so that no prediction depends on the actions it is compared with, and clamped to
    the returns seen there, because powers of the time explode beyond the longest episode.

    Source: Duan et al. (2016), arXiv:1604.06778, the linear baseline of rllab; two folds and clamping are ours.
    """
    assert episodes.observations is not None
    returns, mask = returns_to_go(episodes.rewards, episodes.gamma), episodes.mask
    flat, features = returns[mask], _features(episodes)
    fold = np.broadcast_to((np.arange(len(mask)) % 2 == 0)[:, None], mask.shape)[mask]
    relative = np.empty_like(flat)
    for predicted in (fold, ~fold):
        fitted = ~predicted if not predicted.all() else predicted
        prediction = features[predicted] @ _ridge(features[fitted], flat[fitted])
        relative[predicted] = flat[predicted] - np.clip(prediction, flat[fitted].min(), flat[fitted].max())
    advantages = np.zeros_like(returns)
    advantages[mask] = relative
    return advantages


def reinforce(episodes: Episodes) -> Array:
    """Subtract the mean over all steps of the batch from each return-to-go.

    Source: Williams (1992), REINFORCE with a constant baseline; here to compare with.
    """
    returns = returns_to_go(episodes.rewards, episodes.gamma)
    return np.asarray(np.where(episodes.mask, returns - returns[episodes.mask].mean(), 0.0))


AdvantageName = Literal["timestep", "outcome", "process", "linear", "reinforce", "actions"]
ADVANTAGES: Mapping[str, Callable[[Episodes], Array]] = {
    "timestep": timestep,
    "outcome": outcome,
    "process": process,
    "linear": linear,
    "reinforce": reinforce,
}
"""Those made from episodes alone; `actions` steps copies of the environment: see `counterfactual.py`."""


# --- what follows for all of them -------------------------------------------------------------------------------------


def degenerate_groups(advantages: Array, episodes: Episodes) -> Mask:
    """Return for each group whether no step of it has an advantage: all its episodes went alike, [n_groups]."""
    largest = np.abs(returns_to_go(episodes.rewards, episodes.gamma)).max(initial=1.0)
    return np.asarray(np.abs(episodes.by_group(advantages)).max(axis=(1, 2)) <= _ZERO * largest)


def scale(advantages: Array, episodes: Episodes, scaling: Literal["batch", "group", "none"]) -> Array:
    """Bring advantages to a common scale; those of degenerate groups become exactly zero and are not counted.

    Args:
        advantages: As a function of :data:`ADVANTAGES` gave them.
        episodes: What they were made from.
        scaling: ``batch``: mean 0 and deviation 1 over all steps; ``group``: deviation 1 over the steps of each group;
            ``none``: as they are.

    Source: the deviation of the batch instead of the group's, Liu et al. (2025), arXiv:2508.08221: with few
        episodes in a group the latter is noise, and it vanishes when the policy is good.
    """
    degenerate = np.repeat(degenerate_groups(advantages, episodes), episodes.group_size)
    counted = episodes.mask & ~degenerate[:, None]
    scaled = np.where(counted, advantages, 0.0)
    if scaling == "none" or not counted.any():
        return scaled
    if scaling == "batch":
        values = scaled[counted]
        scaled[counted] = (values - values.mean()) / max(float(values.std()), SMALLEST_DEVIATION)
        return scaled
    squares, steps = (episodes.by_group(part).sum(axis=(1, 2)) for part in (scaled**2, counted))
    means = episodes.by_group(scaled).sum(axis=(1, 2)) / np.maximum(steps, 1)
    deviation = np.sqrt(np.maximum(squares / np.maximum(steps, 1) - means**2, 0.0))
    divisor = np.repeat(np.maximum(deviation, SMALLEST_DEVIATION), episodes.group_size)[:, None]
    return np.asarray(scaled / divisor)


def mean_alive_peers(episodes: Episodes) -> float:
    """Return how many peers still run at a step, on average over the steps of all episodes."""
    alive = episodes.by_group(episodes.mask).sum(axis=1)
    return float((alive * (alive - 1)).sum() / alive.sum())


def explained_variance(advantages: Array, episodes: Episodes) -> float:
    """Return the share of the returns' variance that the baseline predicts, at most 1; nan where there is none."""
    returns = returns_to_go(episodes.rewards, episodes.gamma)[episodes.mask]
    variance = float(returns.var())
    return float("nan") if variance == 0 else 1.0 - float(advantages[episodes.mask].var()) / variance


def _features(episodes: Episodes) -> Array:
    obs = np.asarray(episodes.observations, dtype=np.float64)
    columns = [obs, obs**2]
    if obs.shape[1] <= _MOST_PRODUCTS:
        first, second = np.triu_indices(obs.shape[1], k=1)
        columns.append(obs[:, first] * obs[:, second])
    time = np.broadcast_to(np.arange(episodes.mask.shape[1]) / episodes.mask.shape[1], episodes.mask.shape)
    t = time[episodes.mask][:, None]
    return np.concatenate([*columns, t, t**2, t**3, np.ones_like(t)], axis=1)


def _ridge(features: Array, targets: Array) -> Array:
    """Return the weights of a ridge regression whose penalty is relative to each column's size."""
    size = np.maximum(np.sqrt((features**2).mean(axis=0)), 1e-8)
    scaled = features / size
    gram = scaled.T @ scaled / len(scaled) + _RIDGE * np.eye(scaled.shape[1])
    return np.asarray(np.linalg.solve(gram, scaled.T @ targets / len(scaled)) / size)
