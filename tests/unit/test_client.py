"""The client: what it sends, what it tries again, what its errors say; blocking and awaiting alike."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
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
from rlplatform.http_client import plans
from rlplatform.http_client.plans import FIRST_PAUSE_S, LONGEST_PAUSE_S, Call, Pause, perform
from rlplatform.serve.errors import error_body

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

FIRST = 'retry: 1\n\n: hello\nid: 1\nevent: metrics\ndata: {"timestep": 1,\ndata: "reward": 2.5}\n\nid: 2\ndata: {"time'
REST = 'id: 2\nevent: metrics\ndata: {"timestep": 2}\n\nevent: end\ndata: {}\n\n'


def test_a_stream_that_is_cut_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "FIRST_PAUSE_S", 0.0)

    def answers() -> Recorder:
        return Recorder(httpx.Response(200, text=FIRST), httpx.ReadError("cut"), httpx.Response(200, text=REST))

    async def listen(recorder: Recorder) -> list[dict[str, Any]]:
        async with AsyncClient("http://service", transport=httpx.MockTransport(recorder)) as client:
            return [record async for record in client.stream_metrics("e1", seed=7)]

    blocking, awaiting = answers(), answers()
    told = list(client_of(blocking).stream_metrics("e1", seed=7))
    assert told == asyncio.run(listen(awaiting)) == [{"timestep": 1, "reward": 2.5}, {"timestep": 2}]
    for recorder in (blocking, awaiting):
        assert [request.headers.get("Last-Event-ID") for request in recorder.requests] == [None, "1", "1"]
        assert {str(request.url) for request in recorder.requests} == {
            "http://service/experiments/e1/metrics/stream?seed=7"
        }


def test_a_stream_that_stays_cut_or_is_refused_ends_with_the_reason() -> None:
    with pytest.raises(UnreachableError, match=r"/experiments/e1/metrics/stream was cut: refused\.$"):
        list(client_of(Recorder(httpx.ConnectError("refused")), retries=0).stream_metrics("e1"))
    with pytest.raises(UnreachableError, match=r"was cut: closed before its end\.$"):
        list(client_of(Recorder(httpx.Response(200, text="")), retries=0).stream_metrics("e1"))
    with pytest.raises(NotFoundError, match="because"):
        list(client_of(Recorder(refused(404))).stream_metrics("e1"))
