"""Statistics over training seeds: what the results of several runs say of the algorithm, and how surely.

Within one run the unit is the episode (`train.evaluate`); here it is the run. Neither replaces the other: a narrow
interval over the episodes of one seed says nothing of the next seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with the interval that it lies in, at 95 % confidence."""

    value: float
    low: float
    high: float


def interquartile_mean(values: Sequence[float]) -> Estimate:
    """Return the interquartile mean of the runs of one task, with its bootstrap interval.

    Args:
        values: One result for each training seed, at least one; all finite.
    """
    return aggregate_iqm([values])


def aggregate_iqm(strata: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the interquartile mean over all runs of several tasks, with its stratified bootstrap interval.

    A stratified bootstrap draws seeds anew within each task, never across tasks. Results of different tasks must be on
    one scale before they come here. With a single run for each task nothing is known of the spread: low and high are
    then the value.

    Args:
        strata: For each task one result for each training seed; all finite.
        resamples: Bootstrap samples.
        seed: Seed of the resampling, so that the same runs give the same interval.

    Raises:
        ValueError: There is no value, or one is not finite.

    Source: Agarwal et al. (2021), Deep Reinforcement Learning at the Edge of the Statistical Precipice,
    arXiv:2108.13264, section 4.3.
    """
    return bootstrap(strata, trimmed_mean, resamples=resamples, seed=seed)


def bootstrap(
    strata: Sequence[Sequence[float]],
    statistic: Callable[[Floats], Floats],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of all values, with its percentile bootstrap interval.

    Args:
        strata: The values, in groups that are resampled apart.
        statistic: Maps float64 ``[n_samples, n_values]`` to ``[n_samples]``.
        resamples: Bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        ValueError: There is no value, or one is not finite.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in strata if len(group)]
    if not groups or not all(np.isfinite(group).all() for group in groups):
        raise ValueError("statistics over seeds need at least one value, and finite ones; leave out runs that failed")
    rng = np.random.default_rng(seed)
    samples = np.concatenate([rng.choice(group, size=(resamples, len(group))) for group in groups], axis=1)
    low, high = np.quantile(statistic(samples), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(statistic(np.concatenate(groups)[None])[0]), float(low), float(high))


def probability_of_improvement(new: Sequence[float], old: Sequence[float]) -> Estimate:
    """Return the probability that a run of `new` ends higher than one of `old`, a tie counting half, with its interval.

    0.5 says that neither is better; an interval that holds 0.5, that these seeds cannot tell. Seeds are not paired:
    two algorithms make nothing alike of the same seed.

    Args:
        new: One result for each training seed, all finite.
        old: The same of what `new` is compared with.

    Raises:
        ValueError: Either holds no value, or one that is not finite.

    Source: Agarwal et al. (2021), arXiv:2108.13264, section 4.3: the Mann-Whitney U statistic over the number of pairs.
    """
    if not new or not old:
        raise ValueError("a probability of improvement needs at least one result on each side")

    def statistic(samples: Floats) -> Floats:
        first, second = samples[:, : len(new), None], samples[:, None, len(new) :]
        return np.asarray(((first > second) + 0.5 * (first == second)).mean(axis=(1, 2)))

    return bootstrap([new, old], statistic)


def trimmed_mean(samples: Floats) -> Floats:
    """Return the mean of the middle half of each row: the lowest and highest quarter, rounded down, are left out.

    Args:
        samples: float64 ``[n_samples, n_values]``; of fewer than four values this is their mean.
    """
    cut = samples.shape[1] // 4
    return np.asarray(np.sort(samples, axis=1)[:, cut : samples.shape[1] - cut].mean(axis=1))
