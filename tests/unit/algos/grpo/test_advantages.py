"""Advantages against cases computed by hand, with padding and unequal lengths, and what must hold for all of them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from rlplatform.algos.grpo import advantages as adv

HALF = 0.5
# Two groups of two episodes. At gamma 0.5 their returns-to-go are [2.75, 3.5, 3], [4], [1.5, 1], [1.5, 1].
REWARDS = [[1.0, 2.0, 3.0], [4.0], [1.0, 1.0], [1.0, 1.0]]
EXPECTED = {
    "outcome": [[-0.625, -0.625, -0.625], [0.625], [0.0, 0.0], [0.0, 0.0]],
    "timestep": [[2.75 - 4.0, 3.5, 3.0], [4.0 - 2.75], [0.0, 0.0], [0.0, 0.0]],
    "process": [[-1.625, -0.25, 0.5], [1.5], [0.0, 0.0], [0.0, 0.0]],
    "reinforce": [[0.46875, 1.21875, 0.71875], [1.71875], [-0.78125, -1.28125], [-0.78125, -1.28125]],
}


def make(rewards: list[list[float]], group_size: int = 2, gamma: float = HALF, **options: Any) -> adv.Episodes:
    lengths = np.array([len(episode) for episode in rewards])
    padded, mask = adv.pad(np.concatenate([np.asarray(episode) for episode in rewards]), lengths)
    return adv.Episodes(padded, mask, group_size, gamma, **options)


def random_episodes(seed: int, n: int = 6, longest: int = 7, **options: Any) -> adv.Episodes:
    rng = np.random.default_rng(seed)
    return make([list(rng.normal(size=rng.integers(1, longest + 1))) for _ in range(n)], 3, 0.9, **options)


def test_padding_keeps_the_order_of_steps_and_is_zero() -> None:
    padded, mask = adv.pad(np.arange(1.0, 5.0), np.array([1, 3]))
    assert padded.tolist() == [[1.0, 0.0, 0.0], [2.0, 3.0, 4.0]]
    assert mask.tolist() == [[True, False, False], [True, True, True]]


def test_returns_to_go_are_discounted_sums() -> None:
    episodes = make(REWARDS)
    assert adv.returns_to_go(episodes.rewards, HALF)[:2].tolist() == [[2.75, 3.5, 3.0], [4.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", EXPECTED)
def test_advantages_are_those_computed_by_hand(name: str) -> None:
    episodes = make(REWARDS)
    expected, _ = adv.pad(np.concatenate(EXPECTED[name]), np.array([3, 1, 2, 2]))
    np.testing.assert_allclose(adv.ADVANTAGES[name](episodes), expected, atol=1e-12)


def test_with_alive_peers_only_a_lone_survivor_has_no_advantage() -> None:
    found = adv.timestep(make(REWARDS, alive_peers_only=True))
    assert found[:2].tolist() == [[-1.25, 0.0, 0.0], [1.25, 0.0, 0.0]]


def test_the_timestep_baseline_leaves_the_episode_itself_out() -> None:
    found = adv.timestep(make([[1.0], [2.0], [6.0]], group_size=3))
    assert found[:, 0].tolist() == [1.0 - 4.0, 2.0 - 3.5, 6.0 - 1.5]


def test_process_divides_by_the_groups_deviation_of_rewards_when_asked() -> None:
    plain, divided = adv.process(make(REWARDS)), adv.process(make(REWARDS, group_deviation=True))
    np.testing.assert_allclose(divided[:2], plain[:2] / np.std([1.0, 2.0, 3.0, 4.0]))


def test_the_linear_baseline_explains_returns_that_are_quadratic_in_the_observation() -> None:
    rng = np.random.default_rng(0)
    lengths, obs = np.full(20, 5), rng.uniform(-1.0, 1.0, (100, 3))
    wanted = 1.0 + obs[:, 0] - 2.0 * obs[:, 1] * obs[:, 2] + 0.5 * obs[:, 0] ** 2
    padded, mask = adv.pad(wanted, lengths)
    found = adv.linear(adv.Episodes(padded, mask, 20, gamma=0.0, observations=obs))
    assert np.median(np.abs(found[mask])) < 0.01
    assert adv.explained_variance(found, adv.Episodes(padded, mask, 20, gamma=0.0)) > 0.95


def test_the_linear_baseline_never_predicts_beyond_what_it_was_fitted_on() -> None:
    rewards = [[1.0] * 3, [1.0] * 200, [1.0] * 4, [1.0] * 3]
    episodes = make(rewards, group_size=4, gamma=1.0, observations=np.ones((210, 1)))
    returns = adv.returns_to_go(episodes.rewards, 1.0)
    predicted = (returns - adv.linear(episodes))[1][episodes.mask[1]]
    assert predicted.min() >= 1.0
    assert predicted.max() <= 4.0


def test_outcome_does_not_change_when_every_reward_of_a_group_does() -> None:
    """It holds for episodes of one length; longer ones collect the constant more often."""
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(4, 5))
    shifted = rewards + np.array([[3.0], [3.0], [0.0], [0.0]])
    mask = np.ones((4, 5), bool)
    one, other = (adv.outcome(adv.Episodes(values, mask, 2, 0.9)) for values in (rewards, shifted))
    np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("name", sorted(adv.ADVANTAGES))
def test_padding_has_no_advantage(name: str) -> None:
    episodes = random_episodes(2)
    episodes = random_episodes(2, observations=np.random.default_rng(0).normal(size=(int(episodes.mask.sum()), 2)))
    found = adv.scale(adv.ADVANTAGES[name](episodes), episodes, "batch")
    assert not found[~episodes.mask].any()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("scaling", ["batch", "group", "none"])
@pytest.mark.parametrize("name", ["outcome", "timestep", "process"])
def test_degenerate_groups_have_no_advantage_and_only_they(
    name: str, scaling: Literal["batch", "group", "none"]
) -> None:
    episodes = make([*REWARDS[:2], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [1.0], [2.0]])
    if name == "process":  # It centres rewards within the group, so that only equal ones are degenerate.
        episodes = make([*REWARDS[:2], [0.7, 0.7], [0.7], [1.0], [2.0]])
    found = adv.ADVANTAGES[name](episodes)
    assert adv.degenerate_groups(found, episodes).tolist() == [False, True, False]
    scaled = np.abs(adv.scale(found, episodes, scaling)).max(axis=1)
    assert (scaled == 0).tolist() == [False, False, True, True, False, False]


def test_rounding_is_not_taken_for_an_advantage() -> None:
    episodes = make([[0.1] * 500] * 3, group_size=3, gamma=0.99)
    assert not adv.scale(adv.timestep(episodes), episodes, "batch").any()


def test_batch_scaling_gives_mean_zero_and_deviation_one_over_all_steps() -> None:
    episodes = random_episodes(3)
    values = adv.scale(adv.timestep(episodes), episodes, "batch")[episodes.mask]
    assert values.mean() == pytest.approx(0.0, abs=1e-12)
    assert values.std() == pytest.approx(1.0)


def test_group_scaling_divides_each_group_by_its_own_deviation() -> None:
    episodes = random_episodes(4)
    plain = adv.timestep(episodes)
    scaled = adv.scale(plain, episodes, "group")
    for group in (slice(0, 3), slice(3, 6)):
        steps = episodes.mask[group]
        np.testing.assert_allclose(scaled[group][steps], plain[group][steps] / plain[group][steps].std())


def test_hardly_any_spread_is_not_blown_up() -> None:
    episodes = make([[1.0], [1.0 + 1e-6]])
    assert np.abs(adv.scale(adv.timestep(episodes), episodes, "batch")).max() < 0.01


def test_alive_peers_are_counted_over_the_steps_of_all_episodes() -> None:
    assert adv.mean_alive_peers(make(REWARDS[:2])) == pytest.approx((1 + 0 + 0 + 1) / 4)
