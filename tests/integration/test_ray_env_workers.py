"""The `ray` backend gives SB3 what DummyVecEnv gives, and says what went wrong in a worker."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rlplatform.cluster.env_workers import make_ray_vec_env
from rlplatform.errors import EnvError, EnvWorkerDied
from rlplatform.train.compare import compare_runs
from tests.integration.conftest import Runs
from tests.integration.ray_envs import BreakingEnv, DyingEnv, MeetingEnv

pytestmark = pytest.mark.usefixtures("local_ray")


def cartpole() -> gym.Env[Any, Any]:
    """Return CartPole with episode statistics."""
    return Monitor(gym.make("CartPole-v1", max_episode_steps=30))


def test_trajectories_are_those_of_environments_in_this_process() -> None:
    here, there = DummyVecEnv([cartpole] * 5), make_ray_vec_env([cartpole] * 5, n_workers=2)
    here.seed(7)
    there.seed(7)
    np.testing.assert_array_equal(here.reset(), there.reset())
    rng = np.random.default_rng(0)
    ended = truncated = 0
    for _ in range(150):
        actions = rng.integers(0, 2, 5)
        *arrays_here, infos_here = here.step(actions)
        *arrays_there, infos_there = there.step(actions)
        for array_here, array_there in zip(arrays_here, arrays_there, strict=True):
            np.testing.assert_array_equal(array_here, array_there)
            assert np.asarray(array_here).dtype == np.asarray(array_there).dtype
        for left, right in zip(infos_here, infos_there, strict=True):
            assert left.keys() == right.keys()
            assert left["TimeLimit.truncated"] == right["TimeLimit.truncated"]
            np.testing.assert_array_equal(left.get("terminal_observation", 0), right.get("terminal_observation", 0))
            assert left.get("episode", {}).get("r") == right.get("episode", {}).get("r")
            ended += "episode" in right
            truncated += right["TimeLimit.truncated"]
    assert ended > truncated > 0
    assert there.env_is_wrapped(Monitor) == [True] * 5
    returns = there.env_method("get_episode_rewards", indices=[4, 0])
    assert returns == here.env_method("get_episode_rewards", indices=[4, 0])
    there.set_attr("mark", 3, indices=[1])
    assert there.get_attr("mark", indices=1) == [3]
    assert not there.has_attr("mark")
    there.close()


def test_workers_step_at_the_same_time(tmp_path: Path) -> None:
    envs = make_ray_vec_env([partial(MeetingEnv, tmp_path, 3)] * 6, n_workers=3)
    envs.reset()
    envs.step(np.zeros(6, np.int64))
    assert len(list(tmp_path.iterdir())) == 3
    envs.close()


def test_an_error_in_an_environment_is_told_in_words() -> None:
    envs = make_ray_vec_env([BreakingEnv] * 2, n_workers=2)
    envs.reset()
    envs.set_attr("steps", 200)
    with pytest.raises(EnvError, match="An environment raised OSError: the sensor is broken"):
        envs.step(np.zeros(2, np.int64))
    envs.close()


def test_an_environment_that_cannot_be_made_is_told_in_words() -> None:
    def broken() -> gym.Env[Any, Any]:
        raise OSError("no such robot")

    with pytest.raises(EnvError, match="no such robot"):
        make_ray_vec_env([broken], n_workers=1)


def test_a_worker_that_dies_is_named() -> None:
    envs = make_ray_vec_env([DyingEnv] * 4, n_workers=2)
    envs.reset()
    with pytest.raises(EnvWorkerDied, match=r"Environment worker 2 of 2 \(environments 2 to 3\) died"):
        envs.step(np.array([0, 0, 1, 0]))
    envs.close()


def test_a_run_on_workers_is_the_run_in_one_process(runs: Runs) -> None:
    def env(backend: str) -> dict[str, Any]:
        n_workers = 2 if backend == "ray" else None
        return {"id": "CartPole-v1", "n_envs": 4, "backend": backend, "n_workers": n_workers}

    here, there = runs.create(env=env("sync")), runs.create(env=env("ray"))
    runs.submit(here)
    runs.submit(there, bundles=[{"CPU": 0.5}, {"CPU": 1}, {"CPU": 1}])
    assert runs.until_settled(here, there) == ["completed", "completed"]
    comparison = compare_runs(here, there)
    assert comparison.equal, comparison.difference


def test_a_run_whose_worker_dies_goes_on_from_its_checkpoint(runs: Runs, tmp_path: Path) -> None:
    kwargs = {"mark": str(tmp_path / "died"), "spare_pid": os.getpid()}  # where the environment is tried out
    run = runs.create(
        env={
            "id": "tests.integration.ray_envs:DyingOnceEnv",
            "kwargs": kwargs,
            "n_envs": 2,
            "n_workers": 1,
            "backend": "ray",
            "state": "replay",
        }
    )
    runs.submit(run, bundles=[{"CPU": 0.5}, {"CPU": 1}])
    assert runs.until_settled(run) == ["completed"]
    assert run.read().retries == 1
    assert "Environment worker 1 of 1 (environments 0 to 1) died" in (run.read().attempts[0].reason or "")
