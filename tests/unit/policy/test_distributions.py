"""Stochastic policies: the exported parameters are SB3's distribution, and samples of the runtime follow it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from rlplatform.algos.catalog import algorithms
from rlplatform.policy.export import export_bundle
from rlplatform.policy.runtime import PolicyRuntime
from tests.unit.policy import zoo

N = 20_000
VALUED = ("ppo", "a2c", "trpo", "maskable_ppo")
WIDE = spaces.Box(-1e3, 1e3, (2,), np.float32)
"""Bounds so far that no sample is clipped."""


@pytest.mark.parametrize("action", ["Discrete", "MultiDiscrete", "MultiBinary", "Box"])
@pytest.mark.parametrize("algorithm", VALUED)
def test_log_probabilities_and_values_are_those_of_sb3(algorithm: str, action: str, tmp_path: Path) -> None:
    if action not in algorithms()[algorithm].action_spaces:
        action = "Discrete"
    model = zoo.make_model(zoo.Case(algorithm, "box", action))
    runtime = _publish(model, tmp_path)
    obs = zoo.observations(zoo.OBSERVATIONS["box"], 1000)
    answer = runtime.predict(obs, deterministic=False, rng=np.random.default_rng(0))
    policy: Any = model.policy
    with torch.no_grad():
        given = torch.as_tensor(answer.action)
        given = given.float() if action == "MultiBinary" else given
        values, log_probs, _ = policy.evaluate_actions(torch.as_tensor(obs), given)
    np.testing.assert_allclose(answer.value, values.numpy().reshape(-1), atol=1e-4)
    np.testing.assert_allclose(_log_prob(answer, runtime), log_probs.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "case",
    [
        zoo.Case("ppo", "box", "Discrete"),
        zoo.Case("a2c", "box", "MultiDiscrete"),
        zoo.Case("trpo", "box", "MultiBinary"),
        zoo.Case("maskable_ppo", "box", "MultiBinary"),
        zoo.Case("recurrent_ppo", "box", "Discrete_from_3"),
    ],
    ids=str,
)
def test_sampled_choices_are_as_frequent_as_sb3_says(case: zoo.Case, tmp_path: Path) -> None:
    model = zoo.make_model(case)
    runtime = _publish(model, tmp_path)
    obs = np.repeat(zoo.observations(zoo.OBSERVATIONS["box"], 1, seed=4) * 0.1, N, axis=0)
    sampled = runtime.predict(obs, deterministic=False, rng=np.random.default_rng(5)).action.reshape(N, -1)
    expected = _sb3_probabilities(model, obs[:1])
    assert len(expected) == sampled.shape[1]
    for column, probabilities in zip(sampled.T, expected, strict=True):
        counts = np.bincount(column, minlength=len(probabilities))
        _assert_chi_square(counts, probabilities)


@pytest.mark.parametrize("squashed", [False, True], ids=["clipped", "squashed"])
@pytest.mark.parametrize("use_sde", [False, True], ids=["gaussian", "gsde"])
def test_sampled_continuous_actions_follow_sb3s_gaussian(squashed: bool, use_sde: bool, tmp_path: Path) -> None:
    entry = algorithms()["sac" if squashed else "ppo"]
    space = zoo.ACTIONS["Box"] if squashed else WIDE
    model = zoo.make_model_for(entry, zoo.OBSERVATIONS["box"], space, use_sde=use_sde)
    for name, parameter in model.policy.named_parameters():
        if name.endswith("log_std"):
            parameter.data.fill_(-1.0)  # Larger, tanh would round samples to its ends and lose them.
    runtime = _publish(model, tmp_path)
    obs = np.repeat(zoo.observations(zoo.OBSERVATIONS["box"], 1, seed=2) * 0.1, N, axis=0)
    sampled = runtime.predict(obs, deterministic=False, rng=np.random.default_rng(7)).action
    if squashed:
        assert isinstance(space, spaces.Box)
        unit = 2.0 * (sampled.astype(np.float64) - space.low) / (space.high - space.low) - 1.0
        sampled = np.arctanh(np.clip(unit, -1 + 1e-7, 1 - 1e-7))
    mean, std = _sb3_gaussian(model, obs[:1])
    for column, mu, sigma in zip(sampled.T, mean, std, strict=True):
        _assert_normal((column - mu) / sigma)


def test_masked_actions_are_never_sampled_and_the_rest_keep_their_odds(tmp_path: Path) -> None:
    runtime = _publish(zoo.make_model(zoo.Case("ppo", "box", "Discrete")), tmp_path)
    obs = np.repeat(zoo.observations(zoo.OBSERVATIONS["box"], 1) * 0.1, N, axis=0)
    free = np.exp(runtime.predict(obs[:1]).distribution["logits"][0].astype(np.float64))
    mask = np.array([True, False, True, True])
    sampled = runtime.predict(
        obs, deterministic=False, rng=np.random.default_rng(1), action_masks=np.tile(mask, (N, 1))
    ).action
    counts = np.bincount(sampled, minlength=4)
    assert counts[1] == 0
    _assert_chi_square(counts[mask], free[mask] / free[mask].sum())


@pytest.mark.parametrize(
    ("algorithm", "action"),
    [("dqn", "Discrete"), ("qrdqn", "Discrete"), ("td3", "Box"), ("ddpg", "Box"), ("ars", "Discrete")],
)
def test_greedy_policies_act_the_same_either_way(algorithm: str, action: str, tmp_path: Path) -> None:
    runtime = _publish(zoo.make_model(zoo.Case(algorithm, "box", action)), tmp_path)
    obs = zoo.observations(zoo.OBSERVATIONS["box"], 100)
    np.testing.assert_array_equal(runtime.predict(obs, deterministic=False).action, runtime.predict(obs).action)


def test_values_of_q_networks_are_the_best_q(tmp_path: Path) -> None:
    model: Any = zoo.make_model(zoo.Case("qrdqn", "box", "Discrete"))
    obs = zoo.observations(zoo.OBSERVATIONS["box"], 200)
    with torch.no_grad():
        q_values = model.policy.quantile_net(torch.as_tensor(obs)).mean(dim=1)
    answer = _publish(model, tmp_path).predict(obs)
    np.testing.assert_allclose(answer.distribution["q_values"], q_values.numpy(), atol=1e-4)
    np.testing.assert_allclose(answer.value, q_values.max(dim=1).values.numpy(), atol=1e-4)


def test_values_of_recurrent_policies_follow_their_own_memory(tmp_path: Path) -> None:
    model: Any = zoo.make_model(zoo.Case("recurrent_ppo", "box", "Discrete"))
    runtime = _publish(model, tmp_path)
    starts = torch.zeros(4)
    state = runtime.initial_state(4)
    assert state is not None
    for step in range(3):
        obs = zoo.observations(zoo.OBSERVATIONS["box"], 4, seed=step)
        with torch.no_grad():
            critic = tuple(torch.as_tensor(array) for array in state[2:])
            expected = model.policy.predict_values(torch.as_tensor(obs), critic, starts).reshape(-1)
        answer = runtime.predict(obs, state=state)
        np.testing.assert_allclose(answer.value, expected.numpy(), atol=1e-5)
        assert answer.state is not None
        state = answer.state


def test_one_generator_gives_one_sequence(tmp_path: Path) -> None:
    runtime = _publish(zoo.make_model(zoo.Case("ppo", "box", "Box")), tmp_path)
    obs = zoo.observations(zoo.OBSERVATIONS["box"], 10)
    one, same, other = (
        runtime.predict(obs, deterministic=False, rng=np.random.default_rng(seed)).action for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def _publish(model: BaseAlgorithm, folder: Path) -> PolicyRuntime:
    export_bundle(model, None, folder / "bundle")
    return PolicyRuntime.load(folder / "bundle")


def _log_prob(answer: Any, runtime: PolicyRuntime) -> np.ndarray:
    parameters, action = answer.distribution, answer.action
    match runtime.manifest.distribution.type:
        case "diag_gaussian":
            # Actions that were clipped are scored as they are, here as in SB3.
            mean, log_std = parameters["mean"], parameters["log_std"]
            scaled = (action - mean) / np.exp(log_std)
            return np.asarray((-0.5 * scaled**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(axis=1))
        case "bernoulli":
            signed = np.where(action == 1, parameters["logits"], -parameters["logits"])
            return np.asarray(-np.logaddexp(0.0, -signed).sum(axis=1))
    total = np.zeros(len(action))
    nvec = runtime.manifest.distribution.nvec
    for column, logits in zip(
        action.reshape(len(action), -1).T, np.split(parameters["logits"], np.cumsum(nvec)[:-1], axis=1), strict=True
    ):
        total += logits[np.arange(len(action)), column]
    return total


def _sb3_distribution(model: BaseAlgorithm, obs: np.ndarray) -> Any:
    policy: Any = model.policy
    given = torch.as_tensor(obs)
    if hasattr(policy, "lstm_actor"):
        zeros = torch.zeros(2, 1, 8)
        return policy.get_distribution(given, (zeros, zeros), torch.ones(1))[0]
    return policy.get_distribution(given)


def _sb3_probabilities(model: BaseAlgorithm, obs: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        distribution = _sb3_distribution(model, obs)
        inner = distribution.distribution if hasattr(distribution, "distribution") else distribution.distributions
        if isinstance(inner, torch.distributions.Bernoulli):
            return [np.array([1 - p, p]) for p in inner.probs[0].double().numpy()]
        return [part.probs[0].double().numpy() for part in (inner if isinstance(inner, list) else [inner])]


def _sb3_gaussian(model: BaseAlgorithm, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    policy: Any = model.policy
    with torch.no_grad():
        if hasattr(policy, "actor"):
            mean, log_std, extra = policy.actor.get_action_dist_params(torch.as_tensor(obs))
            inner = policy.actor.action_dist.proba_distribution(mean, log_std, **extra).distribution
        else:
            inner = _sb3_distribution(model, obs).distribution
        return inner.mean[0].double().numpy(), inner.stddev[0].double().numpy()


def _assert_chi_square(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Check counts against probabilities; a right sampler fails once in 10,000 seeds."""
    expected = probabilities * counts.sum()
    assert expected.min() > 5, "too rare to be tested"
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = len(counts) - 1
    # Wilson and Hilferty (1931): the cube root of chi-square over its degrees is nearly normal.
    limit = degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3
    assert statistic < limit * 1.1


def _assert_normal(values: np.ndarray) -> None:
    """Check values against the standard normal by Kolmogorov and Smirnov; a right sampler fails once in 1,000 seeds."""
    ordered = np.sort(values)
    cdf = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in ordered])
    ranks = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(float(np.abs(cdf - ranks[1:]).max()), float(np.abs(cdf - ranks[:-1]).max()))
    assert distance < 1.95 / math.sqrt(len(ordered))
