"""Evaluation: seeded episode by episode, independent of everything around it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlplatform.errors import EnvError
from rlplatform.specs.run import EnvSpec
from rlplatform.train.compare import compare_runs
from rlplatform.train.evaluate import MAX_LANES, evaluate, summarize
from rlplatform.train.student_t import student_t_975
from rlplatform.train.trainer import Trainer
from tests.envs_for_tests import TinyEnv
from tests.unit.train.small_specs import small_spec


class AlwaysLeft:
    """Pushes the cart to the left."""

    def act(self, obs: Any, state: Any = None, episode_start: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        return np.zeros(len(obs), dtype=np.int64), state


class CountsSteps:
    """A recurrent policy whose state counts the steps of each episode; it notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def act(self, obs: Any, state: Any = None, episode_start: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        count = np.zeros((1, len(obs), 1)) if state is None else state[0]
        count = np.where(episode_start[None, :, None], 0, count) + 1
        self.seen.append((len(obs), int(count.max())))
        return np.zeros(len(obs), dtype=np.int64), (count,)


class DrawsWhenMade(TinyEnv):
    """An environment that draws from a global generator in its constructor, and whose actions could be masked."""

    def __init__(self) -> None:
        super().__init__()
        np.random.random()

    def action_masks(self) -> np.ndarray:
        return np.array([True, False, True])


CARTPOLE = EnvSpec(id="CartPole-v1")


def test_the_same_seed_gives_the_same_episodes_and_another_gives_others() -> None:
    first, second, other = (evaluate(AlwaysLeft(), CARTPOLE, n_episodes=5, seed=seed) for seed in (3, 3, 4))
    assert first == second
    assert first.returns != other.returns


def test_more_episodes_than_lanes_are_all_played_and_the_first_ones_stay_the_same() -> None:
    few = evaluate(AlwaysLeft(), CARTPOLE, n_episodes=3, seed=0)
    many = evaluate(AlwaysLeft(), CARTPOLE, n_episodes=MAX_LANES + 7, seed=0)
    assert many.n_episodes == len(many.returns) == MAX_LANES + 7
    assert many.returns[:3] == few.returns
    assert all(length > 0 for length in many.lengths)


def test_recurrent_state_follows_its_episode_when_lanes_end() -> None:
    policy = CountsSteps()
    result = evaluate(policy, CARTPOLE, n_episodes=8, seed=1)
    assert max(count for _, count in policy.seen) == max(result.lengths)
    assert policy.seen[-1][0] < 8


def test_the_global_generators_are_left_as_they_were() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    expected = (torch.rand(1).item(), np.random.rand(), random.random())
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    evaluate(AlwaysLeft(), CARTPOLE, n_episodes=2, seed=0, deterministic=False)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_a_reward_function_does_not_change_the_reported_return() -> None:
    shaped = CARTPOLE.model_copy(update={"reward": "simple_cartpole"})
    assert (
        evaluate(AlwaysLeft(), shaped, n_episodes=3, seed=0).returns
        == evaluate(AlwaysLeft(), CARTPOLE, n_episodes=3, seed=0).returns
    )


class NeverFinite(TinyEnv):
    """Rewards nothing that is a number."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan"), terminated, truncated, info


def test_a_reward_that_is_not_a_number_is_named() -> None:
    env = EnvSpec(id="tests.unit.train.test_evaluate:NeverFinite")
    with pytest.raises(EnvError, match=r"NeverFinite must be finite numbers, but episode 0 .* returned nan"):
        evaluate(AlwaysLeft(), env, n_episodes=2, seed=0)


def test_the_summary_holds_by_hand() -> None:
    result = summarize(np.array([1.0, 2.0, 3.0, 6.0]), np.array([1, 1, 2, 4]), success_threshold=3.0)
    assert (result.return_mean, result.length_mean, result.success_rate) == (3.0, 2.0, 0.5)
    assert result.return_std == pytest.approx(np.sqrt(14 / 3))
    assert result.return_ci_high - 3.0 == pytest.approx(3.182446 * np.sqrt(14 / 3) / 2, rel=5e-3)


def test_one_episode_has_no_spread_and_no_threshold_gives_no_success_rate() -> None:
    result = summarize(np.array([5.0]), np.array([9]), success_threshold=None)
    assert (result.return_std, result.return_ci_low, result.success_rate) == (0.0, 5.0, None)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (9, 2.26216), (99, 1.98422)]
)
def test_student_t_quantile_agrees_with_tables(degrees: int, expected: float) -> None:
    assert student_t_975(degrees) == pytest.approx(expected, rel=5e-3)


def test_evaluation_and_sinks_do_not_change_training(tmp_path: Path) -> None:
    often, never = (
        Trainer.create(
            small_spec(
                "ppo",
                env={"id": "tests.unit.train.test_evaluate:DrawsWhenMade"},
                evaluation={"every_steps": every, "final_episodes": 0, "deterministic": False},
                tracking={"tensorboard": every is not None},
            ),
            tmp_path,
        )
        for every in (64, None)
    )
    for trainer in (often, never):
        trainer.fit()
    assert compare_runs(often.run_dir, never.run_dir).weights_equal


def test_a_stochastic_evaluation_with_gsde_is_the_same_after_a_resume(tmp_path: Path) -> None:
    spec = small_spec("sac", algorithm={"use_sde": True}, evaluation={"every_steps": None, "deterministic": False})
    run = Trainer.create(spec, tmp_path).run_dir
    Trainer.open(run).fit()
    first = run.evaluations_path.read_bytes()
    Trainer.open(run).fit()
    assert run.evaluations_path.read_bytes() == first
