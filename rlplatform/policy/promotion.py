"""When a version becomes the champion: a pure rule that gives its reason. The registry carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlplatform import names
from rlplatform.errors import RegistryError
from rlplatform.policy.registry import CHAMPION, ModelVersion
from rlplatform.train.student_t import student_t_975


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation said of a policy: returns over independent episodes."""

    return_mean: float
    return_std: float
    """Sample standard deviation over episodes."""
    n_episodes: int

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> Evaluation | None:
        """Read an evaluation out of a manifest's metrics; None when they hold none."""
        try:
            n_episodes = int(metrics[names.EVAL_N_EPISODES])
            return cls(metrics[names.EVAL_RETURN_MEAN], metrics[names.EVAL_RETURN_STD], n_episodes)
        except KeyError:
            return None


@dataclass(frozen=True)
class PromotionRule:
    """What a candidate must show."""

    min_episodes: int = 20
    """Episodes behind each mean, at least."""
    min_return: float | None = None
    """Least mean return. None: any."""
    min_gain: float = 0.0
    """What the mean return must be above the champion's, beyond doubt: at the lower end of the 95 % interval."""


@dataclass(frozen=True)
class PromotionDecision:
    """Whether to promote, and why."""

    promote: bool
    reason: str


def decide_promotion(
    candidate: Evaluation | None, champion: Evaluation | None, rule: PromotionRule, *, has_champion: bool
) -> PromotionDecision:
    """Decide whether a candidate replaces the champion.

    Args:
        candidate: Its evaluation; None when it was never evaluated.
        champion: The champion's evaluation; None when it was never evaluated, or there is no champion.
        rule: What is asked for.
        has_champion: Whether there is one to replace.

    Source: Welch (1947), Biometrika 34: the interval of the difference of two means with unequal variances.
    """
    if candidate is None:
        return PromotionDecision(False, "The candidate has no evaluation. Evaluate it and publish it again.")
    if candidate.n_episodes < max(rule.min_episodes, 2):
        return PromotionDecision(
            False,
            f"The candidate was evaluated over {candidate.n_episodes} episodes, of at least "
            f"{max(rule.min_episodes, 2)}. Evaluate more.",
        )
    mean = candidate.return_mean
    if rule.min_return is not None and mean < rule.min_return:
        return PromotionDecision(False, f"Its mean return of {mean:.6g} is below the least, {rule.min_return:.6g}.")
    if not has_champion:
        return PromotionDecision(True, f"There is no champion yet; its mean return is {mean:.6g}.")
    if champion is None or champion.n_episodes < 2:
        return PromotionDecision(False, "The champion has no evaluation to compare with. Set the alias by hand.")
    gain = mean - champion.return_mean
    half = _half_width(candidate, champion)
    found = f"its mean return is {gain:+.6g} ± {half:.3g} (95 %) against the champion's {champion.return_mean:.6g}"
    if gain - half > rule.min_gain:
        return PromotionDecision(True, f"Better beyond doubt: {found}.")
    return PromotionDecision(False, f"Not better by more than {rule.min_gain:.6g} beyond doubt: {found}.")


def compare(
    candidate: ModelVersion, champion: ModelVersion | None, rule: PromotionRule, *, alias: str = CHAMPION
) -> PromotionDecision:
    """Decide whether a version replaces the one that `alias` points at; None: it points at none."""
    if champion is not None and champion.number == candidate.number:
        return PromotionDecision(False, f"{candidate.reference} is {alias!r} already.")
    return decide_promotion(
        Evaluation.from_metrics(candidate.manifest.metrics),
        None if champion is None else Evaluation.from_metrics(champion.manifest.metrics),
        rule,
        has_champion=champion is not None,
    )


def check_candidate(reference: str) -> None:
    """Check that a reference names one version by itself.

    Raises:
        RegistryError: It does not.
    """
    if "@" not in reference:
        raise RegistryError(f"A candidate must be one version, got {reference!r}. Write it like '{reference}@3'.")


def _half_width(one: Evaluation, other: Evaluation) -> float:
    variances = [evaluation.return_std**2 / evaluation.n_episodes for evaluation in (one, other)]
    total = sum(variances)
    if total == 0:
        return 0.0
    degrees = total**2 / sum(v**2 / (e.n_episodes - 1) for v, e in zip(variances, (one, other), strict=True))
    return student_t_975(max(1, math.floor(degrees))) * math.sqrt(total)
