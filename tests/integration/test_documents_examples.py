"""The examples of the two documents, as they are printed there, by curl, by requests and over raw HTTP.

They all speak to http://localhost:8000. Here that address is a proxy's business: curl and requests take the service for
their HTTP proxy, so not a byte of what is printed is changed, and no port of this machine is needed.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlplatform.client import Client, ConflictError, Experiment
from rlplatform.serve.app import create_app
from rlplatform.serve.gateway import open_gateway
from rlplatform.serve.runs import RunService, keeping
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings
from tests.documents import example, examples
from tests.integration.conftest import eventually
from tests.live_app import live

A, B, B_JAPANESE = "rl-agent-training-api.ru.md", "grpo-api.en.md", "grpo-api.ja.md"
ENVIRONMENTS = {"LunarLander-v3", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1", "CartPole-v1"}
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def address(local_ray: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the whole app, whose experiments train on Ray."""
    platform, settings = Settings(home=tmp_path_factory.mktemp("home")), ServeSettings(queue_experiments=True)
    with (
        open_gateway(settings, platform, runs=RunService(platform)) as gateway,
        keeping(gateway.experiments, settings, platform),
        live(create_app(gateway)) as address,
    ):
        yield address
        with Client(address) as client:
            for one in client.list_experiments():
                with suppress(ConflictError):  # It is over already.
                    client.stop_experiment(one.id)
            eventually(lambda: not gateway.experiments.unfinished(), "every experiment is over")


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def run(address: str, *command: str) -> str:
    """Run a program to which the service is http://localhost:8000; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "all_proxy")}
    done = subprocess.run(
        command,
        env={**environment, "http_proxy": address},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_curl(address: str, script: str) -> list[Any]:
    """Return the answers to the calls of a shell script."""
    left, answers = run(address, "bash", "-e", "-c", script).strip(), []
    while left:
        answer, end = json.JSONDecoder().raw_decode(left)
        answers.append(answer)
        left = left[end:].strip()
    assert len(answers) == len(re.findall(r"^curl", script, re.MULTILINE))
    return answers


def run_python(address: str, script: str) -> list[Any]:
    """Return what a Python script prints, line by line."""
    return [ast.literal_eval(line) for line in run(address, sys.executable, "-c", script).splitlines()]


def send(address: str, printed: str, **names: str) -> httpx.Response:
    """Send a request that is printed as HTTP has it, with the names in braces filled in."""
    head, _, body = printed.partition("\n\n")
    first, *lines = head.splitlines()
    method, target = first.split()
    headers = dict(line.split(": ") for line in lines)
    return httpx.request(method, address + target.format(**names), headers=headers, content=body, timeout=TIMEOUT_S)


def documented(document: str, heading: str, number: int = 0) -> dict[str, Any]:
    """Return a printed body; an ellipsis in it stands for anything."""
    body: dict[str, Any] = json.loads(example(document, heading, "json", number).replace("{...}", "{}"))
    return body


def assert_fits(answer: Any, printed: Any, where: str = "the answer") -> None:
    """Assert that an answer has every field that is printed, with values of the same types."""
    if isinstance(printed, dict):
        assert printed.keys() <= answer.keys(), where
        for name, value in printed.items():
            assert_fits(answer[name], value, f"{where}.{name}")
    elif isinstance(printed, list):
        for index, value in enumerate(answer):
            assert_fits(value, printed[0], f"{where}[{index}]")
    elif printed is not None and answer is not None:
        kinds = (int, float) if isinstance(printed, int | float) else type(printed)
        assert isinstance(answer, kinds), where


# --- A: the RL Agent Training API -------------------------------------------------------------------------------------


def test_the_curl_examples_of_the_training_api(address: str) -> None:
    created, listed, health = run_curl(address, example(A, "cURL", "bash"))
    assert (created["name"], created["status"], created["seed"]) == ("curl_test", "created", 42)
    assert created["environment"] == "LunarLander-v3"
    assert "LunarLander-v2 is gone from Gymnasium" in created["warnings"][0]
    assert created["id"] in [one["id"] for one in listed]
    assert_fits(health, documented(A, "Healthcheck"))
    assert health["status"] == "healthy"


def test_the_curl_examples_for_looking_around(address: str) -> None:
    printed = example(A, "Тестирование", "bash")
    calls = "\n".join(line for line in printed.splitlines() if line.startswith("curl"))
    health, environments, algorithms = run_curl(address, calls)
    assert health["status"] == "healthy"
    assert {one["name"] for one in environments} >= ENVIRONMENTS
    assert {one["name"] for one in algorithms} >= {"PPO", "A2C", "SAC", "TD3"}


def test_the_python_client_of_the_training_api(address: str, client: Client) -> None:
    (metrics,) = run_python(address, example(A, "Python клиент", "python"))
    assert metrics.keys() >= {"experiment_id", "metrics", "summary"}
    begun = client.get_experiment(metrics["experiment_id"])
    assert (begun.name, begun.status) == ("my_experiment", begun.status)
    assert begun.status in ("queued", "running")
    assert begun.hyperparameters == {"learning_rate": 0.0003}
    client.stop_experiment(begun.id)
    assert client.wait_for_experiment(begun.id, timeout_s=TIMEOUT_S).status == "stopped"


def test_the_requests_of_the_training_api_in_the_life_of_an_experiment(address: str, client: Client) -> None:
    created = send(address, example(A, "Создание эксперимента", "http"))
    assert created.status_code == 201
    id = created.json()["id"]
    assert created.json()["description"].endswith("PPO на LunarLander")
    assert created.json()["hyperparameters"] == {"learning_rate": 0.0003, "n_steps": 2048, "batch_size": 64}

    def ask(heading: str) -> httpx.Response:
        return send(address, example(A, heading, "http"), experiment_id=id)

    def shown() -> Experiment:
        return client.get_experiment(id)

    assert ask("Информация об эксперименте").json()["description"] == created.json()["description"]  # noqa: RUF001
    assert ask("Запуск обучения").json()["experiment_id"] == id
    assert ask("Запуск обучения").status_code == 409
    eventually(lambda: shown().progress, "it trains", TIMEOUT_S)
    assert id in [one["id"] for one in ask("Список экспериментов").json()]

    assert ask("Обновление эксперимента").status_code == 200
    eventually(lambda: shown().status == "paused", "it pauses", TIMEOUT_S)
    assert shown().hyperparameters["learning_rate"] == 0.0001
    step = shown().runs[0].timesteps
    measured = ask("Получение метрик").json()
    assert measured["metrics"]
    assert all(1000 <= point["timestep"] <= min(5000, step) for point in measured["metrics"])
    results = ask("Получение результатов")
    assert (results.status_code, results.json()["error"]) == (409, "Conflict")

    client.update_experiment(id, status="cancelled")
    eventually(lambda: shown().status == "stopped", "it stops", TIMEOUT_S)
    assert ask("Получение результатов").json()["runs"][0]["timesteps"] == step


@pytest.mark.parametrize("heading", ["Список сред", "Список алгоритмов", "Healthcheck", "Конфигурация"])
def test_the_requests_of_the_training_api_that_only_look(heading: str, address: str) -> None:
    assert send(address, example(A, heading, "http")).status_code == 200


# --- B: the GRPO API --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/training/jobs", "/models", "/health"])
@pytest.mark.parametrize("document", [B, B_JAPANESE])
def test_what_the_grpo_api_shows_has_every_documented_field(document: str, path: str, address: str) -> None:
    assert_fits(httpx.get(address + path).json(), documented(document, f"GET {path}"))


def test_the_python_client_of_the_grpo_api(address: str, client: Client) -> None:
    script = example(B, "Python Client", "python")
    assert _code(script) == _code(example(B_JAPANESE, "Pythonクライアント", "python"))
    status, prediction = run_python(address, script)
    assert_fits(status, documented(B, "GET /training/{job_id}/status"))
    assert status["total_timesteps"] == 5000
    assert_fits(prediction, json.loads(example(B, "Error Handling", "json")))
    assert "test_model" in prediction["detail"]

    done = client.wait_for_job(status["job_id"], timeout_s=TIMEOUT_S)
    assert (done.status, done.progress, done.error_message) == ("completed", 1.0, None)
    asked = {**documented(B, "POST /inference"), "model_name": "test_model"}
    answer = httpx.post(f"{address}/inference", json=asked).json()
    assert_fits(answer, documented(B, "POST /inference", 1))
    assert answer["action"] in (0, 1)
    assert sum(answer["action_probs"]) == pytest.approx(1)
    assert "test_model" in [model.name for model in client.list_models()]
    assert "deleted" in httpx.delete(f"{address}/models/test_model").json()["message"]
    assert "test_model" not in [model.name for model in client.list_models()]


def test_the_curl_examples_of_the_grpo_api(address: str) -> None:
    script = example(B, "cURL Examples", "bash")
    assert _code(script) == _code(example(B_JAPANESE, "cURLの例", "bash"))
    started, health, models = run_curl(address, script)
    assert_fits(started, documented(B, "POST /train", 1))
    assert_fits(health, documented(B, "GET /health"))
    assert_fits(models, documented(B, "GET /models"))
    stopped = httpx.post(f"{address}/training/{started['job_id']}/stop", timeout=TIMEOUT_S)
    assert stopped.json() == {"message": "Training job stopped", "job_id": started["job_id"]}


def test_the_documented_body_of_a_training_job_is_taken_as_it_is(address: str) -> None:
    body = documented(B, "POST /train")
    started = httpx.post(f"{address}/train", json=body).json()
    assert started["config"].items() >= body.items()
    httpx.post(f"{address}/training/{started['job_id']}/stop", timeout=TIMEOUT_S)


def test_every_example_that_can_be_sent_is_sent_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for document in (A, B):
        sendable = [one for one in examples(document) if one.language in ("http", "bash", "python")]
        assert len(sendable) == {A: 15, B: 2}[document]
        headings = {one.heading for one in sendable} - {"Аутентификация (опционально)"}  # A header, not a request.
        assert [heading for heading in headings if f'"{heading}"' not in here] == []


def _code(script: str) -> list[str]:
    return [line for line in script.splitlines() if line and not line.startswith("#")]
