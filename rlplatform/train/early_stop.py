"""When evaluation says that more training is of no use: a pure rule that returns a decision and its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlplatform.specs.run import EarlyStopSpec


@dataclass(frozen=True)
class EvaluationHistory:
    """What the rule remembers of a run's evaluations."""

    best_return: float | None = None
    """Highest mean return so far."""
    reference_return: float | None = None
    """The return that the next one must exceed by `min_improvement`."""
    since_improvement: int = 0
    """Evaluations since the last one that did."""


@dataclass(frozen=True)
class EarlyStopDecision:
    """What to do after an evaluation."""

    is_best: bool
    """The policy is the best so far and worth keeping."""
    stop: bool
    reason: str
    """Why to stop; empty when not."""
    history: EvaluationHistory


def after_evaluation(rule: EarlyStopSpec, history: EvaluationHistory, return_mean: float) -> EarlyStopDecision:
    """Decide after an evaluation whether its policy is the best and whether training ends.

    Args:
        rule: What the spec asks for.
        history: The evaluations before.
        return_mean: Mean return of this evaluation.
    """
    is_best = history.best_return is None or return_mean > history.best_return
    improved = history.reference_return is None or return_mean > history.reference_return + rule.min_improvement
    new = replace(
        history,
        best_return=return_mean if is_best else history.best_return,
        reference_return=return_mean if improved else history.reference_return,
        since_improvement=0 if improved else history.since_improvement + 1,
    )
    reason = ""
    if rule.target_return is not None and return_mean >= rule.target_return:
        reason = f"evaluation return {return_mean:.6g} reached the target {rule.target_return:.6g}"
    elif rule.patience is not None and new.since_improvement >= rule.patience:
        reason = (
            f"no gain over {new.reference_return:.6g} by more than {rule.min_improvement:.6g} "
            f"in {new.since_improvement} evaluations"
        )
    return EarlyStopDecision(is_best, bool(reason), reason, new)
