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
    """Episodes of the candidate's evaluation, at least. A champion of few has a wide interval, which is enough."""
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
    candidate: Evaluation | None,
    champion: Evaluation | None,
    rule: PromotionRule,
    *,
    has_champion: bool,
    alias: str = CHAMPION,
) -> PromotionDecision:
    """Decide whether a candidate replaces the champion.

    Args:
        candidate: Its evaluation; None when it was never evaluated.
        champion: The champion's evaluation; None when it was never evaluated, or there is no champion.
        rule: What is asked for.
        has_champion: Whether there is one to replace.
        alias: What the champion is called.

    Source: Welch (1947), Biometrika 34: the interval of the difference of two means with unequal variances.
    """
    least = max(rule.min_episodes, 2)
    if candidate is None or candidate.n_episodes < least:
        found = "no evaluation" if candidate is None else f"an evaluation over {candidate.n_episodes} episodes only"
        again = f"Publish it again with one over at least {least}."
        return PromotionDecision(False, f"The candidate was published with {found}. {again}")
    mean = candidate.return_mean
    its = f"The candidate's mean return is {mean:.6g}"
    if rule.min_return is not None and mean < rule.min_return:
        return PromotionDecision(False, f"{its}, but at least {rule.min_return:.6g} is asked for.")
    if not has_champion:
        return PromotionDecision(True, f"{its}, and no version is {alias!r} yet.")
    if champion is None or champion.n_episodes < 2:
        return PromotionDecision(
            False,
            f"The version that is {alias!r} was published without an evaluation to compare with. "
            "Publish it again with one, or set the alias by hand.",
        )
    gain, half = mean - champion.return_mean, _half_width(candidate, champion)
    low = gain - half
    found = f"{its}, that of {alias!r} {champion.return_mean:.6g}: a gain of {gain:+.6g} ± {half:.3g} (95 %)"
    promote = low > rule.min_gain
    verdict = "is" if promote else "must be"
    return PromotionDecision(
        promote, f"{found}. The lower end of that, {low:.6g}, {verdict} above {rule.min_gain:.6g}."
    )


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
        alias=alias,
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
