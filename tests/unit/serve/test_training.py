"""The GRPO API over ASGI: what a job is asked with, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.specs.run import RunSpec
from tests.unit.serve.service import Service, service


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as opened:
        yield opened


def test_the_documents_example_starts_a_job(api: Service) -> None:
    config = {
        "env_name": "CartPole-v1",
        "total_timesteps": 10000,
        "learning_rate": 0.0003,
        "n_steps": 32,
        "batch_size": 64,
        "n_epochs": 10,
        "reward_function_type": "optimized_cartpole",
        "model_name": "my_model",
    }
    started = api.json("POST", "/train", json=config)
    assert started["message"] == "Training started"
    assert {name: started["config"][name] for name in config} == config
    status = api.json("GET", f"/training/{started['job_id']}/status")
    expected = {"status": "queued", "progress": 0.0, "current_timesteps": 0, "total_timesteps": 10000, "metrics": {}}
    assert {name: status[name] for name in expected} == expected
    assert api.json("GET", "/training/jobs")["jobs"] == [status]
    assert api.json("GET", f"/experiments/{started['job_id']}")["kind"] == "grpo"


def test_everything_is_optional(api: Service) -> None:
    started = api.json("POST", "/train")
    assert started["config"]["model_name"] == f"grpo_model_{started['job_id']}"
    spec = api.gateway.experiments.get(started["job_id"]).spec
    assert (spec["algorithm"]["name"], spec["env"]["reward"], spec["env"]["id"]) == (
        "grpo",
        "optimized_cartpole",
        "CartPole-v1",
    )
    other = api.json("POST", "/train", json={"env_name": "Acrobot-v1"})
    assert other["config"]["reward_function_type"] is None


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"env_name": "Nothing-v0"}, 400, "Unknown environment"),
        ({"env_name": "os:system"}, 400, "Unknown environment"),
        ({"reward_function_type": "simple_cartpol"}, 400, "Did you mean"),
        ({"reward_function_type": "os:system"}, 400, "Unknown reward function"),
        ({"env_name": "Acrobot-v1", "reward_function_type": "simple_cartpole"}, 400, "is for CartPole-v1"),
        ({"model_name": "../../etc/passwd"}, 400, "passwd"),
        ({"total_timesteps": -5}, 422, "total_timesteps"),
        ({"total_timesteps": 10**10}, 422, "at most 10,000,000"),
        ({"learning_rate": "fast"}, 422, "learning_rate"),
        ({"hyperparameters": {"nonsense": 1}}, 400, "nonsense"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    api: Service, change: dict[str, Any], status: int, said: str
) -> None:
    assert said in api.json("POST", "/train", status, json=change)["detail"]
    assert api.json("GET", "/training/jobs") == {"jobs": []}


def test_a_job_beyond_the_limit_leaves_nothing(api: Service) -> None:
    for _ in range(3):
        api.json("POST", "/train")
    api.json("POST", "/train", 429)
    assert len(api.json("GET", "/training/jobs")["jobs"]) == 3


def test_progress_is_the_runs_own(api: Service) -> None:
    id = api.json("POST", "/train", json={"total_timesteps": 1000})["job_id"]
    run = RunDir.create(api.gateway.home, RunSpec.model_validate(api.gateway.experiments.get(id).spec))
    api.gateway.experiments.add_run(id, run.id, run.path, 0)
    run.metrics_path.write_text('{"step":100,"train/loss":1.0}\n{"step":250,"train/loss":0.5,"x":null}\n')
    run.begin_attempt(0)
    run.update(progress=run.read().progress.model_copy(update={"step": 250}))
    api.gateway.experiments.update(id, status="running", wanted=None)
    status = api.json("GET", f"/training/{id}/status")
    assert (status["progress"], status["current_timesteps"], status["metrics"]) == (0.25, 250, {"train/loss": 0.5})
    api.gateway.experiments.update(id, status="failed", reason="it broke")
    assert api.json("GET", f"/training/{id}/status")["error_message"] == "it broke"


def test_stop_stops_and_says_when_there_is_nothing_to_stop(api: Service) -> None:
    id = api.json("POST", "/train")["job_id"]
    assert api.json("POST", f"/training/{id}/stop") == {"message": "Training job stopped", "job_id": id}
    assert api.gateway.experiments.get(id).wanted == "stop"
    api.gateway.experiments.update(id, status="stopped", wanted=None)
    assert api.json("POST", f"/training/{id}/stop")["message"] == "Job is not running (status: stopped)"
    api.json("POST", "/training/nothing/stop", 404)
    experiment = {"name": "x", "algorithm": "PPO", "environment": "CartPole-v1"}
    other = api.json("POST", "/experiments", 201, json=experiment)["id"]
    api.json("GET", f"/training/{other}/status", 404)
