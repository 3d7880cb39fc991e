"""Experiments over HTTP on a real Ray: trained, paused, resumed, asked; and shut down in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.serve.app import create_app
from rlplatform.serve.gateway import Gateway, open_gateway
from rlplatform.serve.keeper import SHUT_DOWN
from rlplatform.serve.runs import RunService, keeping, shutdown
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings
from tests.integration.conftest import eventually
from tests.integration.experiments import TINY, assert_without_gaps

SETTINGS = ServeSettings(max_concurrent_experiments=8)


class Api:
    """The app in this process, its keeper in a thread of it."""

    def __init__(self, gateway: Gateway, platform: Settings) -> None:
        self.gateway, self.platform = gateway, platform
        self._app = create_app(gateway)

    def json(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """Send one request and return the body of the answer."""

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(self._app), base_url="http://127.0.0.1:8000"
            ) as client:
                return await client.request(method, path, json=body, timeout=60)

        answer = asyncio.run(send())
        assert answer.status_code == status, answer.text
        return answer.json()

    def keeping(self) -> AbstractContextManager[None]:
        """Look after experiments during the block."""
        return keeping(self.gateway.experiments, SETTINGS, self.platform)

    def begin(self, name: str, total_timesteps: int, **changes: Any) -> str:
        """Create and start an experiment."""
        body = {**TINY, "name": name, "total_timesteps": total_timesteps, **changes}
        id = str(self.json("POST", "/experiments", body, 201)["id"])
        self.json("POST", f"/experiments/{id}/train")
        return id

    def until(self, id: str, *statuses: str) -> Any:
        """Wait until an experiment is in one of some states."""

        def arrived() -> Any:
            found = self.json("GET", f"/experiments/{id}")
            return found if found["status"] in statuses else None

        return eventually(arrived, f"{id} is {statuses}: {self.json('GET', f'/experiments/{id}')}", 90)

    def until_step(self, id: str, step: int) -> None:
        """Wait until an experiment's run has trained so far."""
        eventually(
            lambda: any(run["timesteps"] >= step for run in self.json("GET", f"/experiments/{id}")["runs"]),
            f"{id}: {step}",
        )


@pytest.fixture
def api(local_ray: Any, tmp_path: Path) -> Iterator[Api]:
    platform = Settings(home=tmp_path / "home")
    with open_gateway(SETTINGS, platform, runs=RunService(platform)) as gateway:
        yield Api(gateway, platform)


def test_an_experiment_is_trained_paused_resumed_and_asked(api: Api) -> None:
    with api.keeping():
        id = api.begin("My first", 5_000)
        api.until_step(id, 512)
        change = {"status": "paused", "hyperparameters": {"learning_rate": 1e-4}}
        paused = api.json("PUT", f"/experiments/{id}?wait_s=30", change)
        assert (paused["status"], paused["wanted"]) == ("paused", None)
        run = RunDir(api.gateway.experiments.runs(id)[0].run_path)
        assert not run.is_alive()
        before = api.json("GET", f"/experiments/{id}/metrics")["metrics"]
        api.json("POST", f"/experiments/{id}/resume", {"additional_timesteps": 10_000})
        api.until_step(id, before[-1]["timestep"] + 512)
    assert shutdown(api.platform, 30) == 1
    assert (run.read().state, run.read().reason) == ("paused", SHUT_DOWN)
    assert api.gateway.experiments.get(id).status == "running"
    with api.keeping():
        done = api.until(id, "completed", "failed")
        assert done["status"] == "completed", done
        assert api.json("POST", f"/experiments/{id}/evaluate", {"n_episodes": 2})["n_episodes"] == 2
    assert run.spec().algorithm.model_dump()["learning_rate"] == 1e-4
    after = api.json("GET", f"/experiments/{id}/metrics")["metrics"]
    assert after[: len(before)] == before
    assert after[-1]["timestep"] >= 15_000
    assert_without_gaps(api.gateway.home)
    assert api.json("GET", f"/experiments/{id}/results")["model"] == "my-first@1"
    asked = {"model_name": "my-first", "observation": [0.1, 0.0, 0.05, 0.0]}
    assert api.json("POST", "/inference", asked)["action"] in (0, 1)


def test_a_grpo_job_ends_as_a_model(api: Api) -> None:
    config = {"total_timesteps": 600, "model_name": "my_model", "n_envs": 2, "hyperparameters": {"group_size": 4}}
    with api.keeping():
        id = api.json("POST", "/train", config)["job_id"]
        done = eventually(
            lambda: (job := api.json("GET", f"/training/{id}/status"))["status"] in {"completed", "failed"} and job,
            "the job is over",
            90,
        )
    assert (done["status"], done["progress"], done["error_message"]) == ("completed", 1.0, None)
    assert done["current_timesteps"] >= 600
    answer = api.json("POST", "/inference", {"model_name": "my_model", "observation": [0.1, 0.0, 0.05, 0.0]})
    assert sum(answer["action_probs"]) == pytest.approx(1.0)
    assert api.json("GET", "/training/jobs")["jobs"][0]["job_id"] == id
