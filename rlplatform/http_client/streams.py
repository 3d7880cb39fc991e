"""Server-sent events, line by line.

Source: WHATWG HTML, section 9.2.6, Interpreting an event stream.
"""

from __future__ import annotations

import msgspec

from rlplatform.http_client.answers import Event


class EventReader:
    """Puts the lines of one stream together to events."""

    def __init__(self) -> None:
        """Begin a stream."""
        self._kind, self._data = "message", list[str]()

    def read(self, line: str) -> Event | None:
        """Take the next line, without its end; return the event that it completes."""
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                self._data.append(value)
            elif field == "event":
                self._kind = value
            return None
        kind, data = self._kind, "\n".join(self._data)
        self._kind, self._data = "message", []
        if not data:
            return None
        value = msgspec.json.decode(data)
        return Event(kind, value if isinstance(value, dict) else {"value": value})
