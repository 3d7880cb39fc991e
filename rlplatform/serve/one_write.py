"""Answers in one write.

uvicorn writes a response's head and its body apart, and uvloop hands each to the kernel at once: two system calls for
an answer of a few bytes, each of which wakes HAProxy, which sends twice and wakes the client twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def write_answers_at_once() -> None:
    """Have the servers that uvicorn starts in this process from now on send what is written together in one piece."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{OneWriteProtocol.__name__}"


class JoiningTransport(asyncio.Transport):
    """A transport that sends two writes as one, and a write alone when the event loop comes round."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before `inner`."""
        super().__init__()
        self.inner = inner
        self._loop = loop
        self._held: bytes | bytearray | memoryview | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, at the latest in the loop's next round."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            held, self._held = self._held, None
            self.inner.writelines([held, data])

    def _flush(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self.inner.write(held)

    def close(self) -> None:
        """Close once everything is sent."""
        self._flush()
        self.inner.close()

    def is_closing(self) -> bool:
        """Return whether it is closing, or closed."""
        return self.inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection."""
        return self.inner.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop reading."""
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self.inner.resume_reading()


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol over a `JoiningTransport`. WebSockets, whose messages are one write each, go without."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn's own.
        """Begin with a connection."""
        super().connection_made(JoiningTransport(transport, self.loop))

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on."""
        if isinstance(self.transport, JoiningTransport):
            self.transport = self.transport.inner
        super().handle_websocket_upgrade()
