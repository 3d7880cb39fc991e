"""The client and the service's real routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from rlplatform.client import AsyncClient, Client, ConflictError, InvalidRequestError, NotFoundError
from rlplatform.errors import RequestError
from rlplatform.serve.services import Services
from tests.live_app import live
from tests.unit.serve.policies import app_of, registry_of, served, services_of, write_policy
from tests.unit.serve.service import service

OBSERVATION = [0.25, 1.0, 0.0, -3.0]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    registry = registry_of(tmp_path_factory.mktemp("serve"), plain={"value": 0.5}, memory={"memory": True})
    with services_of(registry) as services:
        yield services


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[Client]:
    with served(services) as address, Client(f"http://{address}", retries=0) as client:
        yield client


def test_a_policy_is_asked_with_lists_or_arrays_one_or_a_batch(client: Client) -> None:
    one = client.predict("plain", np.array(OBSERVATION, np.float32))
    assert (one.action, one.value, one.state, one.model) == (1, 0.5, None, "plain@1")
    assert sum(one.action_probs) == pytest.approx(1)
    masked = client.predict("plain@1", [OBSERVATION, OBSERVATION], action_masks=np.array([[1, 0], [1, 1]], bool))
    assert masked.action == [0, 1]
    draws = [client.predict("plain", [OBSERVATION] * 32, deterministic=False, seed=3).action for _ in range(2)]
    assert draws[0] == draws[1]
    assert set(draws[0]) == {0, 1}


def test_tensors_go_as_bytes_both_ways(client: Client) -> None:
    rows = np.array([OBSERVATION, [2.0, 1.0, 0.0, 0.0]], np.float32)
    answer = client.infer("plain", {"obs": rows})
    assert {name: (array.dtype.name, array.tolist()) for name, array in answer.items()} == {
        "action": ("int64", [1, 0]),
        "logits": ("float32", rows[:, :2].tolist()),
        "value": ("float32", [0.5, 0.5]),
    }
    strided = np.repeat(rows, 2, axis=1)[:, ::2].astype(">f8")
    assert client.infer("plain", {"obs": strided}, outputs=["action"]).keys() == {"action"}
    with pytest.raises(InvalidRequestError, match="`obs` must have the shape"):
        client.infer("plain", {"obs": rows[0]})
    with pytest.raises(RequestError, match=r"must have one of the dtypes bool, .* got complex64"):
        client.infer("plain", {"obs": rows.astype(np.complex64)})


def test_metadata_says_what_a_model_takes(client: Client) -> None:
    metadata = client.model_metadata("memory")
    assert [tensor.name for tensor in metadata.inputs] == ["obs", "action_masks", "state/h", "episode_start"]
    assert metadata.inputs[0].shape == (-1, 4)


def test_an_episode_remembers_and_a_new_one_does_not(client: Client) -> None:
    episode = client.episode("memory")
    values = [episode.act([1.0, 0.0, 0.0, 0.0]).value for _ in range(3)]
    assert values == [1.0, 2.0, 3.0]
    assert client.episode("memory").act([1.0, 0.0, 0.0, 0.0]).value == 1.0
    batch = client.episode("memory")
    batch.act([[1.0, 0.0, 0.0, 0.0]] * 2)
    assert batch.act([[1.0, 0.0, 0.0, 0.0]] * 2, episode_start=[False, True]).value == [2.0, 1.0]


def test_the_awaiting_client_asks_policies_too(services: Services) -> None:
    async def talk() -> tuple[list[float], list[int]]:
        async with AsyncClient("http://service", transport=httpx.ASGITransport(app_of(services))) as client:
            episode = client.episode("memory")
            values = [(await episode.act([1.0, 0.0, 0.0, 0.0])).value for _ in range(2)]
            answer = await client.infer("plain", {"obs": np.array([OBSERVATION], np.float32)})
            return values, answer["action"].tolist()

    assert asyncio.run(talk()) == ([1.0, 2.0], [1])


def test_a_missing_model_is_told(client: Client) -> None:
    with pytest.raises(NotFoundError, match="plian"):
        client.predict("plian", OBSERVATION)


def test_bundles_are_uploaded_aliases_moved_and_models_deleted(tmp_path: Path) -> None:
    with service(tmp_path / "home") as whole, live(whole.app) as address, Client(address) as client:
        first = client.upload_model("mine", write_policy(tmp_path / "bundle", value=0.5))
        second = client.upload_model("mine", write_policy(tmp_path / "better", value=0.75))
        assert (first.reference, second.version) == ("mine@1", 2)
        assert client.set_alias("mine", "champion", 1).version == 1
        assert [(model.versions, model.aliases) for model in client.list_models()] == [((1, 2), {"champion": 1})]
        assert client.predict("mine", OBSERVATION).value == 0.5
        with pytest.raises(ConflictError, match="does not become 'champion'"):
            client.set_alias("mine", "champion", 2, gate=True)
        client.delete_model("mine")
        assert client.list_models() == []


def test_experiments_by_the_real_routes(tmp_path: Path) -> None:
    with service(tmp_path) as whole, live(whole.app) as address, Client(address) as client:
        made = client.create_experiment("first", "PPO", "CartPole-v1", seeds=[1, 2], total_timesteps=64)
        assert (made.status, made.seeds, made.total_timesteps) == ("created", (1, 2), 64)
        changed = client.update_experiment(made.id, hyperparameters={"learning_rate": 0.001})
        assert changed.hyperparameters == {"learning_rate": 0.001}
        client.train_experiment(made.id)
        assert [one.id for one in client.list_experiments(status="queued", algorithm="ppo")] == [made.id]
        with pytest.raises(ConflictError, match="no results yet"):
            client.experiment_results(made.id)
        assert client.experiment_metrics(made.id).metrics == ()
        job = client.train(model_name="cart")
        assert client.job_status(job).model_name == "cart"
        assert (client.health().active_experiments, client.health().active_jobs) == (1, 1)
        assert "PPO" in [one.name for one in client.algorithms()]
        assert [one.name for one in client.environments()] == ["CartPole-v1"]
