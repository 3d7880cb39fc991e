"""Episodes are counted in the order they start in, and those that are not finished are carried over."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rlplatform.algos.grpo.buffer import EpisodeBuffer

OBS = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,), np.float32), "b": spaces.Discrete(9)})


def step(t: int, n_envs: int = 2) -> dict[str, Any]:
    """Return a step whose rewards tell time and environment: 10 t + i."""
    ids = 10.0 * t + np.arange(n_envs)
    obs = {"a": np.stack([ids, ids], axis=1).astype(np.float32), "b": np.arange(n_envs)}
    return {"observations": obs, "actions": np.arange(n_envs), "rewards": ids, "log_probs": -ids}


def play(buffer: EpisodeBuffer, ends: list[list[bool]], limit: int, t0: int = 0) -> None:
    for t, dones in enumerate(ends):
        infos = [{"TimeLimit.truncated": i == 1, "terminal_observation": f"last {i}"} for i in range(2)]
        buffer.add(step(t0 + t), np.array(dones), infos, limit)


def make() -> EpisodeBuffer:
    buffer = EpisodeBuffer(OBS, spaces.Discrete(3), 2)
    buffer.begin(0, 2)
    buffer.begin(1, 2)
    return buffer


def test_the_first_episodes_to_start_are_taken_however_long_they_last() -> None:
    buffer = make()
    play(buffer, [[True, False], [True, False], [False, True]], limit=4)
    assert buffer.finished(2)
    flat = buffer.flat(range(2))
    assert flat.columns["rewards"].tolist() == [0.0, 1.0, 11.0, 21.0]
    assert flat.columns["observations"]["a"][:, 0].tolist() == [0.0, 1.0, 11.0, 21.0]
    assert flat.lengths.tolist() == [1, 3]
    assert flat.truncated.tolist() == [False, True]
    assert flat.last_obs == ["last 0", "last 1"]
    assert not flat.carried.any()


def test_no_more_episodes_begin_than_allowed() -> None:
    buffer = make()
    play(buffer, [[True, False], [False, False], [False, True]], limit=2)
    assert buffer.finished(2)
    assert buffer.idle_fraction == 2 / 6
    assert len(buffer.episodes) == 2


def test_what_is_carried_over_is_finished_in_the_next_update() -> None:
    buffer = make()
    play(buffer, [[True, False], [True, False], [False, True]], limit=4)
    carried = buffer.carry(2)
    buffer.take_over(carried)
    assert not buffer.finished(2)
    play(buffer, [[True, False], [False, True]], limit=4, t0=3)
    assert buffer.finished(2)
    flat = buffer.flat(range(2))
    # Environment 0 played one step at t = 1, and from t = 2 to 3; environment 1 was idle after t = 2.
    assert flat.columns["rewards"].tolist() == [10.0, 20.0, 30.0]
    assert flat.carried.tolist() == [True, True, False]
    assert buffer.idle_fraction == 2 / 4


def test_an_episode_cut_short_by_a_reset_is_played_anew() -> None:
    buffer = make()
    play(buffer, [[False, False]], limit=4)
    buffer.take_over(buffer.carry(0))
    buffer.begin(0, 2)
    play(buffer, [[True, True]], limit=2, t0=7)
    assert buffer.flat(range(2)).columns["rewards"].tolist() == [70.0, 1.0, 71.0]


def test_rows_grow_without_loss() -> None:
    buffer = make()
    play(buffer, [[False, False]] * 700 + [[True, True]], limit=2)
    assert buffer.flat([0]).columns["rewards"].tolist() == [10.0 * t for t in range(701)]
