"""What every group of requests builds on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from rlplatform.errors import RequestError
from rlplatform.http_client.answers import Experiment, TrainingJob
from rlplatform.http_client.errors import WaitTimeoutError
from rlplatform.http_client.plans import Call, Pause, Plan, ask, perform

T = TypeVar("T")
Told = TypeVar("Told", Experiment, TrainingJob)


class Requests:
    """Turns what is asked into plans. Each request raises `ClientError` where the service refuses or fails."""

    def __init__(self, retries: int) -> None:
        """Send each request again at most `retries` times."""
        self.retries = retries

    def _ask(self, kind: type[T], method: str, path: str, **parts: Any) -> Plan[T]:
        return ask(Call(method, path, **parts), kind, self.retries)

    def _do(self, call: Call) -> Plan[None]:
        yield from perform(call, self.retries)

    def _wait(
        self,
        kind: type[Told],
        path: str,
        is_over: Callable[[Told], bool],
        timeout_s: float | None,
        poll_s: float,
        on_progress: Callable[[Told], object] | None,
    ) -> Plan[Told]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            told = yield from self._ask(kind, "GET", path)
            if on_progress is not None:
                on_progress(told)
            if is_over(told):
                return told
            if deadline is not None and time.monotonic() + poll_s > deadline:
                raise WaitTimeoutError(f"{path} is still {told.status} after {timeout_s:g} s. It goes on; wait again.")
            yield Pause(poll_s)


def segment(name: str) -> str:
    """Return a name as one part of a path, whatever is in it.

    Raises:
        RequestError: It cannot be one.
    """
    if name in ("", ".", ".."):
        raise RequestError(f"A name must not be {name!r}.")
    return quote(name, safe="@")


def given(**fields: Any) -> dict[str, Any]:
    """Return those fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
