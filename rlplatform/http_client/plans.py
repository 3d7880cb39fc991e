"""Plans: what the client does, apart from how it waits, so that each rule stands once for `Client` and `AsyncClient`.

A *plan* is a generator. It yields a `Call` and is sent the response, or thrown the `httpx.TransportError`; it yields a
`Pause` and is sent None when that is over; what it returns is the result. One driver blocks, the other awaits.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

import httpx
import msgspec

from rlplatform.http_client.errors import ClientError, UnreachableError, error_class

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 60.0
REPEATABLE_METHODS = frozenset({"GET", "PUT", "DELETE"})

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """Of the query; those that are None are left out."""
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool | None = None
    """Whether doing it twice is as good as once. None: by the method."""

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again where nobody knows if it was carried out."""
        return self.method in REPEATABLE_METHODS if self.repeatable is None else self.repeatable

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return the request with what the client adds: address, key, time limit."""
        params = {name: value for name, value in self.params.items() if value is not None}
        headers = dict(self.headers)
        content = self.content
        if self.json is not None:
            # Not httpx's encoder, which knows neither NumPy nor dates and is ten times as slow.
            content, headers["content-type"] = msgspec.json.encode(self.json, enc_hook=_plain), "application/json"
        return http.build_request(self.method, self.path, params=params, content=content, headers=headers)


@dataclass(frozen=True)
class Pause:
    """Some seconds of waiting."""

    seconds: float


Plan: TypeAlias = Generator[Call | Pause, Any, T]


class Blocking(ABC):
    """Drives plans by blocking."""

    @abstractmethod
    def send(self, call: Call) -> httpx.Response:
        """Send one request, and return the response with its body."""

    def drive(self, plan: Plan[T]) -> T:
        """Carry out a plan."""
        outcome: Any = None
        resume: Callable[[Any], Call | Pause] = plan.send
        while True:
            try:
                step = resume(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            resume, outcome = plan.send, None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                continue
            try:
                outcome = self.send(step)
            except httpx.TransportError as error:
                resume, outcome = plan.throw, error


class Awaiting(ABC):
    """Drives plans by awaiting."""

    @abstractmethod
    async def send(self, call: Call) -> httpx.Response:
        """Send one request, and return the response with its body."""

    async def drive(self, plan: Plan[T]) -> T:
        """Carry out a plan."""
        outcome: Any = None
        resume: Callable[[Any], Call | Pause] = plan.send
        while True:
            try:
                step = resume(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            resume, outcome = plan.send, None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            try:
                outcome = await self.send(step)
            except httpx.TransportError as error:
                resume, outcome = plan.throw, error


class planned(Generic[P, T]):
    """Turns a method that returns a plan into one that carries it out: at once, or when awaited."""

    def __init__(self, method: Callable[Concatenate[Any, P], Plan[T]]) -> None:
        """Wrap `method`."""
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> planned[P, T]: ...
    @overload
    def __get__(self, owner: Blocking, kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, owner: Awaiting, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, owner: Blocking | Awaiting | None, kind: type) -> Any:
        """Return the bound method."""
        if owner is None:
            return self

        @wraps(self._method)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return owner.drive(self._method(owner, *args, **kwargs))

        return method


def ask(call: Call, kind: type[T], retries: int) -> Plan[T]:
    """Send a request, and return the answer as `kind`.

    Raises:
        ClientError: The service refused, failed, or could not be asked.
    """
    response = yield from perform(call, retries)
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as error:
        raise ClientError(
            f"{call.method} {response.request.url} was answered with something else than expected: {error}. "
            "Is this the address of an rlplatform service, and of this version?",
            response.status_code,
        ) from error


def perform(call: Call, retries: int) -> Plan[httpx.Response]:
    """Send a request until it succeeds, fails for good, or was sent `1 + retries` times.

    A request that may have been carried out is sent again only if that does no harm. What was certainly not carried
    out (no connection, 429) is sent again in any case.

    Raises:
        ClientError: The service refused, failed, or could not be asked.
    """
    attempt = 0
    while True:
        try:
            response: httpx.Response = yield call
        except httpx.TransportError as error:
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            if attempt >= retries or not (never_sent or call.may_repeat):
                raise _unreachable(call, error) from error
            pause_s = backoff_s(attempt)
        else:
            if response.is_success:
                return response
            again = response.status_code == 429 or (response.status_code == 503 and call.may_repeat)
            if attempt >= retries or not again:
                raise error_of(response)
            asked_s = _retry_after_s(response)
            pause_s = backoff_s(attempt) if asked_s is None else asked_s
        yield Pause(min(pause_s, LONGEST_PAUSE_S))
        attempt += 1


def error_of(response: httpx.Response) -> ClientError:
    """Return the error that a response is."""
    try:
        body = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        body = None
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail", body.get("error", response.reason_phrase))
    request_id = response.headers.get("x-request-id")
    asked = f"{response.request.method} {response.request.url.path}"
    traced = f" (request {request_id})" if request_id and response.status_code >= 500 else ""
    message = f"{asked} was answered with {response.status_code}: {detail}{traced}"
    return error_class(response.status_code)(
        message, response.status_code, str(detail), request_id, body.get("details")
    )


def _unreachable(call: Call, error: httpx.TransportError) -> UnreachableError:
    url = error.request.url.copy_with(raw_path=b"/")
    return UnreachableError(
        f"{call.method} {call.path} got no answer from {url}: {error or type(error).__name__}. Does the service run "
        "there (`rlplatform serve`), and is RLPLATFORM_URL its address?"
    )


def backoff_s(attempt: int) -> float:
    """Return how long to wait after an attempt that failed; the first is 0."""
    # Jitter, so that many clients of one service do not come back together.
    return FIRST_PAUSE_S * 2.0**attempt * random.uniform(0.5, 1.0)


def _retry_after_s(response: httpx.Response) -> float | None:
    given = response.headers.get("retry-after", "")
    if given.isdigit():
        return float(given)
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # No date, or one without a zone.
        return None


def _plain(value: Any) -> Any:
    """Return what of NumPy an observation may be made of, as JSON knows it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} cannot be sent as JSON.")
