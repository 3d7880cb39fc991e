"""The client: what it sends, what it tries again, what its errors say; blocking and awaiting alike."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import numpy as np
import pytest

from rlplatform.client import (
    AsyncClient,
    BusyError,
    Client,
    ClientError,
    ConflictError,
    Experiment,
    InvalidRequestError,
    KeyRefusedError,
    NotFoundError,
    ServerError,
    UnreachableError,
    WaitTimeoutError,
)
from rlplatform.errors import RequestError
from rlplatform.http_client.plans import FIRST_PAUSE_S, LONGEST_PAUSE_S, Call, Pause, perform
from rlplatform.http_client.streams import EventReader
from rlplatform.serve.errors import error_body
from rlplatform.serve.services import Services
from tests.unit.serve.policies import app_of, registry_of, served, services_of

EXPERIMENT = {
    "id": "e1",
    "name": "first",
    "status": "running",
    "algorithm": "PPO",
    "environment": "CartPole-v1",
    "hyperparameters": {},
    "seeds": [42],
    "total_timesteps": 1000,
    "created_at": "2026-01-01T00:00:00Z",
    "a_field_of_tomorrow": 1,
}
JOB = {"job_id": "j1", "status": "running", "progress": 0.5}
OBSERVATION = [0.25, 1.0, 0.0, -3.0]


class Recorder:
    """Answers requests one after the other, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client_of(handler: Callable[[httpx.Request], httpx.Response], **settings: Any) -> Client:
    return Client("http://service", transport=httpx.MockTransport(handler), **settings)


def refused(status: int, message: str = "because", headers: dict[str, str] | None = None) -> httpx.Response:
    given = {"X-Request-ID": "abc", "Retry-After": "0", **(headers or {})}
    return httpx.Response(status, content=error_body("Name", message, [{"field": "x"}]), headers=given)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, KeyRefusedError),
        (403, KeyRefusedError),
        (404, NotFoundError),
        (409, ConflictError),
        (418, ClientError),
        (422, InvalidRequestError),
        (429, BusyError),
        (500, ServerError),
        (503, BusyError),
    ],
)
def test_a_refusal_is_an_error_of_its_own_class_that_says_what_the_service_says(
    status: int, kind: type[ClientError]
) -> None:
    with pytest.raises(ClientError, match=f"^GET /health was answered with {status}: because") as caught:
        client_of(Recorder(refused(status)), retries=0).health()
    assert type(caught.value) is kind
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.status, error.detail, error.request_id, error.details) == (
            status,
            "because",
            "abc",
            [{"field": "x"}],
        )


def test_what_is_no_service_of_ours_is_told_from_one() -> None:
    with pytest.raises(ClientError, match="Is this the address of an rlplatform service"):
        client_of(Recorder(httpx.Response(200, text="<html>"))).health()
    with pytest.raises(ServerError, match=r"was answered with 502: Bad Gateway$"):
        client_of(Recorder(httpx.Response(502, text="<html>"))).health()


def test_the_key_and_the_address_come_from_arguments_else_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(client: Client, recorder: Recorder) -> httpx.Request:
        with pytest.raises(NotFoundError, match="404"):
            client.delete_model("x")
        return recorder.requests[0]

    monkeypatch.setenv("RLPLATFORM_URL", "http://elsewhere:1")
    monkeypatch.setenv("RLPLATFORM_API_KEY", "rlp_variable")
    recorder = Recorder(refused(404))
    request = sent(Client(transport=httpx.MockTransport(recorder)), recorder)
    assert (str(request.url), request.headers["Authorization"]) == (
        "http://elsewhere:1/models/x",
        "Bearer rlp_variable",
    )
    recorder = Recorder(refused(404))
    assert sent(client_of(recorder, key="mine"), recorder).headers["Authorization"] == "Bearer mine"
    monkeypatch.delenv("RLPLATFORM_API_KEY")
    recorder = Recorder(refused(404))
    assert "Authorization" not in sent(client_of(recorder), recorder).headers


# --- trying again -----------------------------------------------------------------------------------------------------


def steps(call: Call, *outcomes: httpx.Response | httpx.TransportError, retries: int = 9) -> list[float]:
    """Return the pauses that a call takes until its last outcome, which must be its end."""
    plan, pauses = perform(call, retries), []
    step = next(plan)
    try:
        for outcome in outcomes:
            assert step is call
            if isinstance(outcome, httpx.TransportError):
                outcome.request = httpx.Request(call.method, f"http://service{call.path}")
                step = plan.throw(outcome)
            else:
                outcome.request = httpx.Request(call.method, f"http://service{call.path}")
                step = plan.send(outcome)
            assert isinstance(step, Pause)
            pauses.append(step.seconds)
            step = next(plan)
    except StopIteration:
        return pauses
    raise AssertionError("it goes on")


OK = httpx.Response(200)
GET, POST, SAFE_POST = Call("GET", "/x"), Call("POST", "/x"), Call("POST", "/x", repeatable=True)


@pytest.mark.parametrize("call", [GET, POST, SAFE_POST])
def test_what_was_not_carried_out_is_sent_again_whatever_it_is(call: Call) -> None:
    assert len(steps(call, refused(429), httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), OK)) == 3


@pytest.mark.parametrize("call", [GET, SAFE_POST])
def test_what_does_no_harm_twice_is_sent_again_when_nobody_knows(call: Call) -> None:
    assert len(steps(call, refused(503), httpx.ReadError("cut"), httpx.ReadTimeout("slow"), OK)) == 3


@pytest.mark.parametrize("outcome", [refused(503), httpx.ReadError("cut"), httpx.RemoteProtocolError("cut")])
def test_what_may_have_been_carried_out_is_not_sent_again(outcome: httpx.Response | httpx.TransportError) -> None:
    with pytest.raises(ClientError, match="POST /x"):
        steps(POST, outcome)


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_what_would_be_refused_again_is_not_sent_again(status: int) -> None:
    with pytest.raises(ClientError, match="because"):
        steps(GET, refused(status))


def test_it_gives_up_after_as_many_as_allowed() -> None:
    with pytest.raises(BusyError, match="429"):
        steps(GET, refused(429), refused(429), refused(429), retries=2)
    with pytest.raises(UnreachableError, match="RLPLATFORM_URL its address") as caught:
        steps(GET, httpx.ConnectError("refused"), httpx.ConnectError("refused"), retries=1)
    assert caught.value.status is None


def test_it_waits_as_long_as_it_is_told_but_not_for_ever() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    answers = [refused(429, headers={"Retry-After": value}) for value in ("7", soon, "86400")]
    seven, until, day = steps(GET, *answers, OK)
    assert seven == 7
    assert 20 < until <= 30
    assert day == LONGEST_PAUSE_S


def test_it_waits_longer_each_time_where_it_is_not_told() -> None:
    untold = [refused(503, headers={"Retry-After": value}) for value in ("", "nonsense", "")]
    for attempt, pause_s in enumerate(steps(GET, *untold, OK)):
        assert FIRST_PAUSE_S * 2**attempt / 2 <= pause_s <= FIRST_PAUSE_S * 2**attempt


HEALTH = {
    "status": "healthy",
    "version": "1",
    "uptime_seconds": 1.0,
    "active_experiments": 0,
    "active_jobs": 0,
    "loaded_models": 0,
}


def test_both_clients_try_again() -> None:
    recorder = Recorder(refused(503), refused(429), httpx.Response(200, json=HEALTH))
    assert client_of(recorder).health().status == "healthy"
    assert len(recorder.requests) == 3

    async def ask(recorder: Recorder) -> str:
        async with AsyncClient("http://service", transport=httpx.MockTransport(recorder)) as client:
            return (await client.health()).status

    recorder = Recorder(refused(503), refused(429), httpx.Response(200, json=HEALTH))
    assert asyncio.run(ask(recorder)) == "healthy"
    assert len(recorder.requests) == 3


# --- experiments and jobs ---------------------------------------------------------------------------------------------


def test_an_experiment_is_asked_for_in_the_words_of_the_document() -> None:
    recorder = Recorder(httpx.Response(201, json=EXPERIMENT))
    made = client_of(recorder).create_experiment(
        "first", "PPO", "CartPole-v1", seed=7, hyperparameters={"n_steps": np.int64(64)}, hypothesis="it learns"
    )
    assert made == Experiment(
        "e1", "first", "running", "PPO", "CartPole-v1", {}, (42,), 1000, datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert recorder.requests[0].content == (
        b'{"name":"first","algorithm":"PPO","environment":"CartPole-v1","hyperparameters":{"n_steps":64},'
        b'"description":"","hypothesis":"it learns","seed":7}'
    )


def test_only_filters_that_are_given_are_sent() -> None:
    recorder = Recorder(httpx.Response(200, json=[EXPERIMENT]))
    assert [one.id for one in client_of(recorder).list_experiments(status="running", limit=5)] == ["e1"]
    assert recorder.requests[0].url.query == b"status=running&limit=5"


@pytest.mark.parametrize("name", ["a/b", "a?b", "a b", "../up", "%2e"])
def test_a_name_is_one_part_of_the_path_whatever_is_in_it(name: str) -> None:
    recorder = Recorder(refused(404))
    with pytest.raises(NotFoundError, match="404"):
        client_of(recorder).get_experiment(name)
    path = recorder.requests[0].url.raw_path.decode()
    assert path.startswith("/experiments/")
    assert path.count("/") == 2
    assert "?" not in path


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="must not be"):
        client_of(Recorder()).delete_model(name)


def test_waiting_tells_of_the_progress_and_ends_with_the_experiment() -> None:
    answers = [httpx.Response(200, json={**EXPERIMENT, "status": s}) for s in ("queued", "running", "completed")]
    told: list[str] = []
    done = client_of(Recorder(*answers)).wait_for_experiment(
        "e1", poll_s=0, timeout_s=60, on_progress=lambda one: told.append(one.status)
    )
    assert done.status == "completed"
    assert told == ["queued", "running", "completed"]


def test_waiting_ends_in_time() -> None:
    answer = httpx.Response(200, json=EXPERIMENT)
    with pytest.raises(WaitTimeoutError, match=r"/experiments/e1 is still running after 0\.5 s\. It goes on"):
        client_of(Recorder(answer)).wait_for_experiment("e1", timeout_s=0.5, poll_s=1)
    with pytest.raises(WaitTimeoutError, match="/training/j1/status is still running"):
        client_of(Recorder(httpx.Response(200, json=JOB))).wait_for_job("j1", timeout_s=0, poll_s=1)


def test_jobs_are_started_listed_and_stopped() -> None:
    recorder = Recorder(
        httpx.Response(200, json={"job_id": "j1", "message": "Training started", "config": {}}),
        httpx.Response(200, json={"jobs": [JOB]}),
        httpx.Response(200, json={"message": "Training job stopped", "job_id": "j1"}),
    )
    client = client_of(recorder)
    assert client.train(env_name="CartPole-v1", total_timesteps=5000) == "j1"
    assert [job.progress for job in client.list_jobs()] == [0.5]
    client.stop_job("j1")
    asked = [f"{request.method} {request.url.path}" for request in recorder.requests]
    assert asked == ["POST /train", "GET /training/jobs", "POST /training/j1/stop"]
    assert recorder.requests[0].content == b'{"env_name":"CartPole-v1","total_timesteps":5000}'


def test_both_clients_can_do_the_same_with_the_same_arguments() -> None:
    def public(kind: type) -> dict[str, Any]:
        return {
            name: inspect.signature(member._method if hasattr(member, "_method") else member).parameters.keys()
            for name, member in inspect.getmembers(kind)
            if not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)
    assert all(inspect.getdoc(getattr(Client, name)) for name in public(Client))


def test_importing_the_client_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "fastapi", "gymnasium", "onnxruntime"}
    code = f"import sys, rlplatform.client; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- streams ----------------------------------------------------------------------------------------------------------

STREAM = 'retry: 1\n\n: hello\nevent: metric\ndata: {"timestep": 1,\ndata: "reward": 2.5}\n\ndata: {"timestep": 2}\n\n'


def test_events_are_put_together_from_lines() -> None:
    reader = EventReader()
    events = [event for line in STREAM.splitlines() if (event := reader.read(line))]
    assert [(event.kind, event.data) for event in events] == [
        ("metric", {"timestep": 1, "reward": 2.5}),
        ("message", {"timestep": 2}),
    ]


def test_both_clients_listen_to_metrics() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/experiments/e1/metrics/stream"
        return httpx.Response(200, text=STREAM)

    with client_of(answer).stream_metrics("e1") as events:
        assert [event.data["timestep"] for event in events] == [1, 2]

    async def listen() -> list[int]:
        async with (
            AsyncClient("http://service", transport=httpx.MockTransport(answer)) as client,
            client.stream_metrics("e1") as events,
        ):
            return [event.data["timestep"] async for event in events]

    assert asyncio.run(listen()) == [1, 2]
    with (
        pytest.raises(NotFoundError, match="because"),
        client_of(Recorder(refused(404))).stream_metrics("e1"),
    ):
        pass


# --- policies, by the real routes -------------------------------------------------------------------------------------


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
