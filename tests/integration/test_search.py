"""Searches on a real Ray: what survives the death of drivers and actors, and what ends a search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from rlplatform.artifacts.search_dir import SearchDir, list_searches
from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.cluster.runner import RayOptions
from rlplatform.errors import CheckpointError
from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_load import dump_search_spec
from rlplatform.tune.progress import SearchProgress
from rlplatform.tune.run import resume_search, run_search
from tests.integration.conftest import eventually, tiny_spec

ROOT = Path(__file__).parents[2]
LEARNING_RATE = "algorithm.learning_rate"
ONE_AT_A_TIME = RayOptions(limit=1)


def tiny_search(run: dict[str, Any] | None = None, **changes: Any) -> SearchSpec:
    """Return a search over PPO on CartPole whose trials report eight times within a second or two."""
    base = tiny_spec(
        budget={"total_timesteps": 1024},
        evaluation={"every_steps": 128, "n_episodes": 2, "final_episodes": 0},
        checkpoint={"every_steps": 256},
    ).model_dump(mode="json")
    return SearchSpec.model_validate(
        {
            "run": {**base, **(run or {})},
            "space": {LEARNING_RATE: {"type": "loguniform", "low": 1e-5, "high": 1e-2}},
            "budget": {"trials": 4},
            "seed": 1,
            **changes,
        }
    )


def story(trials: tuple[TrialRecord, ...]) -> list[tuple[Any, ...]]:
    """Return what must not depend on when a search was interrupted."""
    return [
        (trial.trial_id, trial.point, trial.state, trial.step, trial.iteration, trial.value, trial.best_value)
        for trial in trials
    ]


def killed_search(spec: SearchSpec, home: Path, trial: int, iteration: int) -> SearchDir:
    """Run a search in a process of its own, and kill it once a trial has come so far."""
    home.mkdir()
    (home / "search.yaml").write_text(dump_search_spec(spec))
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.search_driver", str(home / "search.yaml"), str(home)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": address},
        start_new_session=True,
    )

    def is_there() -> SearchDir | None:
        assert driver.poll() is None, "the search ended before it could be killed"
        for record in list_searches(home):
            search = SearchDir.open(home, record.id)
            trials = search.trials()
            if len(trials) > trial and trials[trial].iteration >= iteration:
                return search
        return None

    search: SearchDir = eventually(is_there, f"trial {trial} at iteration {iteration}", 120)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert search.read().state == "running"
    eventually(lambda: not search.is_alive(), "the lock of the killed driver is free")
    return search


SCHEDULERS = {
    "tpe-asha": {"sampler": {"name": "tpe", "n_startup": 2}, "scheduler": {"name": "asha", "grace_steps": 256}},
    "random-pbt": {"scheduler": {"name": "pbt", "every_steps": 256, "quantile_fraction": 0.5}},
    "hyperband": {"scheduler": {"name": "hyperband", "every_steps": 512, "reduction_factor": 2}},
}
KILLED_AT = {"hyperband": (3, 2)}
"""Trial, and its iteration: where the third trial waits for the fourth, until their bracket is halved."""


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_search_whose_driver_is_killed_ends_as_one_never_killed(local_ray: Any, tmp_path: Path, kind: str) -> None:
    spec = tiny_search(**SCHEDULERS[kind])
    search = killed_search(spec, tmp_path / "killed", *KILLED_AT.get(kind, (2, 3)))
    before = {trial.trial_id: trial for trial in search.trials()}
    resumed = resume_search(search, ONE_AT_A_TIME)
    whole = run_search(spec, tmp_path / "whole", ONE_AT_A_TIME)
    assert (resumed.state, whole.state) == ("completed", "completed")
    assert story(resumed.trials) == story(whole.trials)
    assert resumed.best is not None
    assert whole.best is not None
    assert resumed.best.trial_id == whole.best.trial_id
    for trial in resumed.trials:
        known = before.get(trial.trial_id)
        if known is not None and known.ended_for_good:
            assert trial == known, "a trial that had ended was touched"
        first = search.runs(trial)[0].read()
        if known is not None and known.step >= 256:
            assert all(attempt.start_step for attempt in first.attempts[1:]), "it began again at zero"
    assert search.read().attempts == 2
    assert resume_search(search).reason == "completed before"


def test_a_failed_trial_says_why_and_the_search_goes_on(local_ray: Any, tmp_path: Path) -> None:
    spec = tiny_search(
        run={"env": {"id": "tests.integration.ray_envs:BreakingEnv", "n_envs": 2, "max_episode_steps": 100}},
        space={"env.max_episode_steps": {"type": "grid", "values": [300, 100]}},
        sampler={"name": "grid"},
    )
    result = run_search(spec, tmp_path, ONE_AT_A_TIME)
    search = SearchDir.open(tmp_path, result.search_id)
    assert result.state == "completed"
    assert [trial.state for trial in result.trials] == ["failed", "completed"]
    assert result.trials[0].reason is not None
    assert "the sensor is broken" in result.trials[0].reason
    assert search.runs(result.trials[0])[0].read().state == "failed"
    assert result.best is not None
    assert result.best.number == 1


def test_a_trial_whose_actor_dies_goes_on_from_its_checkpoint(local_ray: Any, tmp_path: Path) -> None:
    spec = tiny_search(
        run={"budget": {"total_timesteps": 3072}}, budget={"trials": 3, "steps": 7000}, objective={"seeds": [0, 1]}
    )
    killed: list[int] = []

    def kill_once(progress: SearchProgress) -> None:
        if not killed and progress.trials and progress.trials[0].iteration >= 3:
            (search,) = list_searches(tmp_path)
            run = SearchDir.open(tmp_path, search.id).runs(progress.trials[0])[0]
            killed.append(run.read().attempts[-1].machine.pid)
            os.kill(killed[0], signal.SIGKILL)

    result = run_search(spec, tmp_path, ONE_AT_A_TIME, kill_once)
    search = SearchDir.open(tmp_path, result.search_id)
    first, second = result.trials
    for run in search.runs(first):
        attempts = run.read().attempts
        assert [attempt.machine.pid == killed[0] for attempt in attempts] == [True, False]
        assert attempts[1].start_step >= 256
    assert result.reason == "the search's 7000 steps are trained"
    assert (result.state, first.state, second.state) == ("completed", "completed", "stopped")
    assert first.trained_steps + second.trained_steps >= 7000


def test_a_search_is_not_taken_up_under_another_spec(local_ray: Any, tmp_path: Path) -> None:
    spec = tiny_search(budget={"trials": 2, "hours": 1e-5})
    result = run_search(spec, tmp_path, ONE_AT_A_TIME)
    search = SearchDir.open(tmp_path, result.search_id)
    assert (result.state, search.read().state) == ("stopped", "stopped")
    search.spec_path.write_text(dump_search_spec(spec.model_copy(update={"seed": 2})))
    with pytest.raises(CheckpointError, match="was changed since the search began"):
        resume_search(search, ONE_AT_A_TIME)
