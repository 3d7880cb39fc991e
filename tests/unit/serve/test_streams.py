"""The stream: an episode's loop over one connection."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from rlplatform.serve.services import InferenceLimits, Services
from tests.unit.serve.policies import HIDDEN, registry_of, served, services_of

OBS = np.array([0.25, 1.0, 0.0, -3.0], np.float32)
ONES = [1.0] * 4


@pytest.fixture
def services(tmp_path: Any) -> Iterator[Services]:
    registry = registry_of(tmp_path, plain={"value": 0.5}, memory={"memory": True})
    with services_of(registry, InferenceLimits(max_streams=2, max_body_bytes=1000, max_batch=8)) as services:
        yield services


@dataclass(frozen=True)
class Client:
    """Talks to a service."""

    address: str

    def stream(self, query: str) -> ClientConnection:
        """Open a stream."""
        return connect(f"ws://{self.address}/inference/stream?model_name={query}", compression=None)

    def post(self, **body: Any) -> httpx.Response:
        """Ask over HTTP."""
        return httpx.post(f"http://{self.address}/inference", json=body)


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with served(services) as address:
        yield Client(address)


def say(socket: ClientConnection, **message: Any) -> Any:
    socket.send(json.dumps(message))
    return json.loads(socket.recv())


def actions(socket: ClientConnection, data: bytes) -> list[int]:
    socket.send(data)
    return list(np.frombuffer(socket.recv(decode=False), np.int64))


def test_text_is_answered_as_inference_answers(client: Client) -> None:
    with client.stream("plain") as socket:
        answers = [say(socket, observation=OBS.tolist()) for _ in range(3)]
        masked = say(socket, observation=OBS.tolist(), action_masks=[True, False])
    expected = client.post(model_name="plain", observation=OBS.tolist()).json()
    assert answers == [expected] * 3
    assert masked["action"] == 0


def test_bytes_are_answered_with_bytes(client: Client) -> None:
    with client.stream("plain") as socket:
        assert actions(socket, OBS.tobytes()) == [1]
        assert actions(socket, OBS.tobytes() + bytes([1, 0])) == [0]


def test_several_episodes_go_together(client: Client) -> None:
    rows = np.stack([OBS, np.zeros(4, np.float32), OBS])
    with client.stream("plain&n=3") as socket:
        assert actions(socket, rows.tobytes()) == [1, 0, 1]
        assert say(socket, observation=rows.tolist())["action"] == [1, 0, 1]


def test_state_is_held_until_an_episode_starts(client: Client) -> None:
    with client.stream("memory") as socket:
        values = [say(socket, observation=ONES)["value"] for _ in range(3)]
        values.append(say(socket, observation=ONES, episode_start=True)["value"])
        socket.send('{"episode_start": true}')
        values += [say(socket, observation=ONES)["value"] for _ in range(2)]
    assert values == [4.0, 8.0, 12.0, 4.0, 4.0, 8.0]


def test_a_new_connection_goes_on_with_the_state_of_another(client: Client) -> None:
    with client.stream("memory") as socket:
        text = say(socket, observation=ONES)["state"]
        socket.send(np.ones(4, np.float32).tobytes())
        data = socket.recv(decode=False)
    assert np.frombuffer(data, np.float32, HIDDEN, 8).tolist() == [8.0] * HIDDEN
    with client.stream("memory") as socket:
        assert say(socket, observation=ONES, state=text)["value"] == 8.0
        socket.send(json.dumps({"state": base64.b64encode(data[8:]).decode()}))
        assert say(socket, observation=ONES)["value"] == 12.0
        assert say(socket, observation=ONES)["value"] == 16.0


def test_a_draw_can_be_asked_for(client: Client) -> None:
    with client.stream("plain&deterministic=false") as socket:
        actions = [say(socket, observation=[0.0] * 4, seed=seed)["action"] for seed in range(20)]
        greedy = [say(socket, observation=[0.0] * 4, deterministic=True)["action"] for _ in range(5)]
    assert set(actions) == {0, 1}
    assert set(greedy) == {0}


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ("{", "RequestError", "The body does not fit"),
        ('{"model_name": "plain", "observation": [0,0,0,0]}', "RequestError", "unknown field"),
        ('{"observation": [0]}', "PolicyInputError", "`observation` must have the shape"),
        ('{"observation": [[0,0,0,0],[0,0,0,0]]}', "PolicyInputError", "of 1 episodes, got 2"),
        ('{"observation": [0,0,0,0], "state": "AAAA"}', "PolicyInputError", "no memory"),
        (b"\0" * 15, "PolicyInputError", "must have 16 bytes, or 18 with masks, got 15"),
        (np.full(4, np.nan, np.float32).tobytes(), "PolicyInputError", "got NaN"),
        (b"\0" * 1001, "RequestTooLarge", "at most 1000 bytes"),
    ],
)
def test_what_does_not_fit_is_answered_in_words_and_the_stream_goes_on(
    message: str | bytes, error: str, words: str, client: Client
) -> None:
    with client.stream("plain") as socket:
        socket.send(message)
        answer = json.loads(socket.recv())
        assert answer["error"] == error
        assert words in answer["detail"]
        assert say(socket, observation=OBS.tolist())["action"] == 1


def test_the_version_that_answers_is_named_and_held(client: Client, services: Services) -> None:
    with client.stream("plain") as socket:
        say(socket, observation=ONES)
        assert [model.pins for model in services.models.loaded()] == [1]
        assert services.streams.count == 1
        assert socket.response is not None
        assert socket.response.headers["x-model-version"] == "plain@1"
    deadline = time.monotonic() + 5
    while services.streams.count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert services.streams.count == 0
    assert [model.pins for model in services.models.loaded()] == [0]


def test_streams_have_a_limit_that_leaves_inference_alone(client: Client) -> None:
    with client.stream("plain"), client.stream("plain"):
        with pytest.raises(InvalidStatus, match="503") as denied, client.stream("plain"):
            pass
        assert "At most 2 streams" in json.loads(denied.value.response.body)["detail"]
        assert client.post(model_name="plain", observation=ONES).status_code == 200


@pytest.mark.parametrize(("query", "status"), [("plane", 404), ("../x", 400), ("plain&n=9", 413), ("plain&n=-1", 422)])
def test_a_stream_about_nothing_is_refused_before_it_opens(query: str, status: int, client: Client) -> None:
    with pytest.raises(InvalidStatus, match=str(status)), client.stream(query):
        pass


def test_silence_ends_a_stream(tmp_path: Any) -> None:
    registry = registry_of(tmp_path, plain={})
    with (
        services_of(registry, InferenceLimits(stream_idle_s=0.02)) as services,
        served(services) as address,
        Client(address).stream("plain") as socket,
        pytest.raises(ConnectionClosed, match="nothing was said for"),
    ):
        socket.recv()
