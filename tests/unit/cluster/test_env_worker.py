"""Splitting, stacking and joining environments, without Ray."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlplatform.cluster.env_worker import EnvWorker, join, stack
from rlplatform.cluster.env_workers import split


@pytest.mark.parametrize(
    ("n_envs", "n_workers", "sizes"), [(4, 2, [2, 2]), (5, 2, [2, 3]), (3, 8, [1, 1, 1]), (7, 3, [2, 2, 3])]
)
def test_environments_are_split_evenly_and_in_order(n_envs: int, n_workers: int, sizes: list[int]) -> None:
    shares = split(n_envs, n_workers)
    assert [len(share) for share in shares] == sizes
    assert [env for share in shares for env in share] == list(range(n_envs))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float32),
        spaces.Discrete(4),
        spaces.Dict({"a": spaces.Box(0, 255, (2, 2), np.uint8), "b": spaces.MultiBinary(3)}),
        spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (1,), np.float64))),
    ],
    ids=repr,
)
def test_stacked_observations_of_workers_join_into_one_batch(space: spaces.Space[Any]) -> None:
    observations = [space.sample() for _ in range(5)]
    joined = join([stack(observations[:2], space), stack(observations[2:], space)])
    for index, expected in enumerate(observations):
        if isinstance(space, spaces.Dict):
            got: Any = {key: joined[key][index] for key in joined}
        elif isinstance(space, spaces.Tuple):
            got = tuple(part[index] for part in joined)
        else:
            got = joined[index]
        assert space.contains(got)
        np.testing.assert_equal(got, expected)


def test_a_worker_resets_at_the_end_of_an_episode_and_keeps_what_was_last_seen() -> None:
    worker = EnvWorker([lambda: gym.make("CartPole-v1", max_episode_steps=3) for _ in range(2)])
    worker.reset([0, 1], [{}, {}])
    for _ in range(2):
        batch = worker.step(np.array([0, 1]))
        assert batch.infos == {}
    batch = worker.step(np.array([0, 1]))
    assert batch.dones.tolist() == [True, True]
    assert batch.infos[0]["TimeLimit.truncated"]
    assert not np.array_equal(batch.infos[0]["terminal_observation"], batch.observations[0])


def test_actions_may_be_changed_by_the_environment() -> None:
    class Clipping(gym.Env[Any, Any]):
        observation_space = action_space = spaces.Box(-1, 1, (1,), np.float32)

        def step(self, action: Any) -> Any:
            action *= 0.5
            return action, 0.0, False, False, {}

    actions = np.ones((1, 1), np.float32)
    actions.flags.writeable = False
    assert EnvWorker([Clipping]).step(actions).observations.tolist() == [[0.5]]
