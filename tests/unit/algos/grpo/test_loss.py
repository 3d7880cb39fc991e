"""The loss: its gradient equals finite differences, and the policies' densities equal Stable-Baselines3's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import make_proba_distribution

from rlplatform.algos.grpo.batch import Batch
from rlplatform.algos.grpo.loss import Coefficients, grpo_loss, k3
from rlplatform.algos.grpo.policies import ActorPolicy
from tests.envs_for_tests import ACTIONS

OBSERVATION = spaces.Box(-1.0, 1.0, (3,), np.float32)
N = 40


def make_policy(actions: str, *, double: bool = False) -> ActorPolicy:
    torch.manual_seed(0)
    policy = ActorPolicy(OBSERVATION, ACTIONS[actions], lambda _: 1e-3, net_arch=[5])
    with torch.no_grad():
        policy.action_net.weight.mul_(50)
    if double:
        policy = policy.double()
        vars(policy)["extract_features"] = lambda obs, _: obs  # SB3's would turn observations into float32.
    return policy


def make_batch(policy: ActorPolicy, *, over_actions: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        actions, log_probs = policy(obs)
        every = torch.log_softmax(policy.raw(obs), dim=1)
    shape = every.shape if over_actions else log_probs.shape
    noise = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return Batch(
        obs, actions, log_probs if over_actions else log_probs + noise,
        torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.rand(N, generator=generator, dtype=torch.float64),
        torch.log_softmax(every + noise, dim=1) if over_actions else None,
    )  # fmt: skip


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("actions", [*ACTIONS, "over all actions"])
def test_the_gradient_equals_finite_differences(actions: str, kl: float) -> None:
    over_actions = actions not in ACTIONS
    policy = make_policy("discrete" if over_actions else actions, double=True)
    batch = make_batch(policy, over_actions=over_actions)
    reference = copy.deepcopy(policy)
    vars(reference)["extract_features"] = vars(policy)["extract_features"]
    parameters = list(policy.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.03 * torch.randn_like(parameter))

    def total() -> torch.Tensor:
        coefficients = Coefficients(clip_low=0.2, clip_high=0.28, entropy=0.1, kl=kl)
        return grpo_loss(policy, batch, coefficients, reference if kl else None).total

    gradients = torch.autograd.grad(total(), parameters)
    for seed in range(4):
        torch.manual_seed(seed)
        direction = [torch.randn_like(parameter) for parameter in parameters]
        sloped = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        ends = []
        for side in (1e-6, -1e-6):
            with torch.no_grad():
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.add_(side * d)
                ends.append(float(total()))
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.sub_(side * d)
        assert sloped == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_the_reference_term_has_a_gradient_and_is_zero_at_the_reference() -> None:
    policy = make_policy("discrete", double=True)
    batch = make_batch(policy)
    only_kl = Coefficients(0.2, 0.2, entropy=0.0, kl=1.0)
    at_itself = grpo_loss(policy, batch, only_kl, policy)
    assert at_itself.reference_kl == pytest.approx(0.0, abs=1e-12)
    other = make_policy("discrete", double=True)
    with torch.no_grad():
        other.action_net.bias.add_(torch.tensor([1.0, 0.0, -1.0]))
    still = Batch(batch.observations, batch.actions, batch.log_probs, torch.zeros(N), batch.weights)
    loss = grpo_loss(policy, still, only_kl, other)
    assert loss.reference_kl > 0.05
    (gradient,) = torch.autograd.grad(loss.total, [policy.action_net.bias])
    assert gradient.abs().max() > 0.01


def test_clip_higher_lets_good_actions_rise_further_than_bad_ones_fall() -> None:
    policy = make_policy("discrete", double=True)
    batch = make_batch(policy)
    with torch.no_grad():
        log_probs = policy.evaluate_actions(batch.observations, batch.actions).log_prob
    risen = Batch(batch.observations, batch.actions, log_probs - np.log(1.25), torch.ones(N), torch.ones(N))
    for clip_high, moves in ((0.2, False), (0.28, True)):
        loss = grpo_loss(policy, risen, Coefficients(0.2, clip_high, 0.0, 0.0))
        (gradient,) = torch.autograd.grad(loss.total, [policy.action_net.weight])
        assert bool(gradient.abs().max() > 0) is moves
        assert loss.clip_fraction == (0.0 if moves else 1.0)


def test_k3_is_never_negative_and_zero_only_at_zero() -> None:
    values = k3(torch.linspace(-3, 3, 61))
    assert values.min() == 0
    assert (values == 0).sum() == 1


@pytest.mark.parametrize("actions", ACTIONS)
def test_densities_equal_those_of_stable_baselines3(actions: str) -> None:
    policy = make_policy(actions)
    obs = torch.randn(N, 3)
    taken, log_prob = policy(obs)
    distribution: Any = make_proba_distribution(ACTIONS[actions])
    raw = policy.raw(obs)
    if actions == "box":
        distribution.proba_distribution(raw, policy.log_std)
    else:
        distribution.proba_distribution(action_logits=raw)
    torch.testing.assert_close(log_prob, distribution.log_prob(taken))
    evaluation = policy.evaluate_actions(obs, taken)
    torch.testing.assert_close(evaluation.log_prob, log_prob)
    torch.testing.assert_close(evaluation.entropy, distribution.entropy())
    greedy = policy._predict(obs, deterministic=True)
    torch.testing.assert_close(greedy, distribution.mode().to(greedy.dtype))


def test_draws_follow_the_probabilities() -> None:
    policy = make_policy("discrete")
    obs = torch.ones(20_000, 3)
    drawn = torch.bincount(policy(obs)[0], minlength=3) / len(obs)
    torch.testing.assert_close(drawn, torch.softmax(policy.raw(obs[:1])[0], dim=0), atol=0.015, rtol=0)


@pytest.mark.parametrize("batch_size", [7, 13, 40, 100])
def test_minibatches_are_of_nearly_one_size_and_cover_every_step_once(batch_size: int) -> None:
    batch = make_batch(make_policy("discrete", double=True))
    parts = list(batch.minibatches(batch_size))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(batch_size, N)
    everything = torch.cat([part.log_probs for part in parts]).sort().values
    torch.testing.assert_close(everything, batch.log_probs.sort().values)
