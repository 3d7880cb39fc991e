"""Listening to server-sent events, over as many connections as it takes.

Source: WHATWG HTML, section 9.2.6, Interpreting an event stream.
"""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from rlplatform.http_client.errors import UnreachableError
from rlplatform.http_client.plans import backoff_s

TIMEOUT = httpx.Timeout(60.0, read=None)
"""Nothing may be measured for long."""


class Listening:
    """What was heard on a stream so far: enough to go on after a connection was cut."""

    def __init__(self, path: str, retries: int) -> None:
        """Begin to listen at `path`; give up after `1 + retries` connections on which nothing was heard."""
        self.path, self.is_over = path, False
        self._retries, self._failures = retries, 0
        self._last_id = ""
        self._id, self._kind, self._data = "", "", list[str]()

    @property
    def headers(self) -> dict[str, str]:
        """What a new connection is to ask for: what comes after the last event."""
        self._id, self._kind, self._data = self._last_id, "", []
        return {"Last-Event-ID": self._last_id} if self._last_id else {}

    def hear(self, line: str) -> dict[str, Any] | None:
        """Take the next line, without its end; return the record that it completes."""
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                self._data.append(value)
            elif field == "event":
                self._kind = value
            elif field == "id":
                self._id = value
            return None
        self._last_id = self._id  # Only now: of an event that was cut off, nothing was heard.
        kind, data = self._kind, "\n".join(self._data)
        self._kind, self._data = "", []
        self._failures = 0
        if kind == "end":
            self.is_over = True
        if not data or self.is_over:
            return None
        record: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        return record

    def pause_s(self, error: httpx.TransportError | None) -> float:
        """Return how long to wait before the next connection.

        Args:
            error: What the last one ended with. None: it was closed, without the stream's end.

        Raises:
            UnreachableError: It is time to give up.
        """
        if self._failures >= self._retries:
            raise UnreachableError(f"The stream {self.path} was cut: {error or 'closed before its end'}.") from error
        self._failures += 1
        return backoff_s(self._failures - 1)
