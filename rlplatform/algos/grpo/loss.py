"""The loss of one minibatch, and what it says about the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlplatform.algos.grpo.batch import Batch
from rlplatform.algos.grpo.policies import ActorPolicy


@dataclass(frozen=True)
class Coefficients:
    """The weights and limits of the loss, as they are during one update."""

    clip_low: float
    clip_high: float
    entropy: float
    kl: float


class Loss(NamedTuple):
    """Scalars; `total` has the gradient, the others have none."""

    total: Tensor
    policy_gradient: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor
    reference_kl: Tensor


def grpo_loss(
    policy: ActorPolicy, batch: Batch, coefficients: Coefficients, reference: ActorPolicy | None = None
) -> Loss:
    """Return the clipped objective with its entropy bonus and its distance from a reference policy.

    Args:
        policy: What is trained.
        batch: Steps with their advantages.
        coefficients: Limits and weights.
        reference: The policy to stay near; None: no such term.

    Source: the objective, Shao et al. (2024), arXiv:2402.03300, eq. 3, averaged over steps (Yu et al., 2025,
        arXiv:2503.14476, eq. 12, with its upper clip range); the distance, eq. 4 (Schulman's k3 estimator).
    """
    if batch.all_log_probs is not None:
        return _over_all_actions(policy, batch, coefficients, reference)
    log_prob, entropy = policy.evaluate_actions(batch.observations, batch.actions)
    log_ratio = log_prob - batch.log_probs
    objective, clipped = _clipped(log_ratio, batch.advantages, coefficients)
    gain = (batch.weights * objective).mean()
    mean_entropy = entropy.mean()
    total = -gain - coefficients.entropy * mean_entropy
    distance = torch.zeros(())
    if reference is not None:
        with torch.no_grad():
            towards = reference.evaluate_actions(batch.observations, batch.actions).log_prob
        distance = (batch.weights * k3(towards - log_prob)).mean()
        total = total + coefficients.kl * distance
    with torch.no_grad():
        approx_kl = k3(log_ratio).mean()
    return Loss(total, -gain.detach(), mean_entropy.detach(), approx_kl, clipped.mean(), distance.detach())


def k3(log_ratio: Tensor) -> Tensor:
    """Return ``exp(x) - 1 - x``: never negative, and on average the KL divergence of the ratio's denominator."""
    return torch.expm1(log_ratio) - log_ratio


def _clipped(log_ratio: Tensor, advantages: Tensor, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
    """Return the clipped objective, and 1 where the ratio is outside of the limits."""
    ratio = log_ratio.exp()
    limited = ratio.clamp(1.0 - coefficients.clip_low, 1.0 + coefficients.clip_high)
    outside = (ratio.detach() != limited.detach()).float()
    return torch.minimum(ratio * advantages, limited * advantages), outside


def _over_all_actions(
    policy: ActorPolicy, batch: Batch, coefficients: Coefficients, reference: ActorPolicy | None
) -> Loss:
    """Return the objective as an expectation over all actions, each weighted by how likely it was."""
    assert batch.all_log_probs is not None
    log_probs = torch.log_softmax(policy.raw(batch.observations), dim=1)
    old = batch.all_log_probs
    log_ratio = log_probs - old
    objective, clipped = _clipped(log_ratio, batch.advantages, coefficients)
    likely = old.exp()
    gain = (batch.weights * (likely * objective).sum(dim=1)).mean()
    entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean()
    total = -gain - coefficients.entropy * entropy
    distance = torch.zeros(())
    if reference is not None:
        with torch.no_grad():
            towards = torch.log_softmax(reference.raw(batch.observations), dim=1)
        distance = (batch.weights * (log_probs.exp() * (log_probs - towards)).sum(dim=1)).mean()
        total = total + coefficients.kl * distance
    with torch.no_grad():
        approx_kl = (likely * k3(log_ratio)).sum(dim=1).mean()
        outside = (likely * clipped).sum(dim=1).mean()
    return Loss(total, -gain.detach(), entropy.detach(), approx_kl, outside, distance.detach())
