"""A job goes on with the runs that it has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.job_runs import run_of_this_job, runs_of_job
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.names import JOB_ENV_VAR
from rlplatform.specs.run import RunSpec


def spec(**changes: Any) -> RunSpec:
    value = {"algorithm": {"name": "ppo"}, "env": {"id": "CartPole-v1"}, "budget": {"total_timesteps": 4096}}
    return RunSpec.model_validate({**value, **changes})


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> str:
    """The job that this process is a command of."""
    monkeypatch.setenv(JOB_ENV_VAR, "sweep-7")
    return "sweep-7"


def test_a_run_knows_the_job_that_made_it(job: str, tmp_path: Path) -> None:
    assert RunDir.create(tmp_path, spec()).read().job == job


def test_a_run_that_no_job_made_says_so(tmp_path: Path) -> None:
    assert RunDir.create(tmp_path, spec()).read().job is None
    assert run_of_this_job(tmp_path, spec()) is None


@pytest.mark.usefixtures("job")
def test_the_same_spec_and_seed_is_the_same_run_of_a_job(tmp_path: Path) -> None:
    first, second = RunDir.create(tmp_path, spec(seed=1)), RunDir.create(tmp_path, spec(seed=2))
    assert run_of_this_job(tmp_path, spec(seed=1)) == first
    assert run_of_this_job(tmp_path, spec(seed=2)) == second
    assert run_of_this_job(tmp_path, spec(seed=3)) is None
    assert run_of_this_job(tmp_path, spec(seed=1, name="another")) is None


@pytest.mark.usefixtures("job")
def test_an_amended_run_is_still_the_one_that_was_asked_for(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, spec())
    run.amend(spec(budget={"total_timesteps": 8192}), step=0, changes={"budget.total_timesteps": (4096, 8192)})
    assert run_of_this_job(tmp_path, spec()) == run
    assert run_of_this_job(tmp_path, spec(budget={"total_timesteps": 8192})) is None


def test_a_job_sees_no_runs_of_another(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [RunDir.create(tmp_path, spec(seed=seed)).id for seed in (1, 2)]
    monkeypatch.setenv(JOB_ENV_VAR, "another")
    assert run_of_this_job(tmp_path, spec(seed=1)) is None
    RunDir.create(tmp_path, spec(seed=1))
    assert [record.id for record in runs_of_job(tmp_path, job)] == mine
