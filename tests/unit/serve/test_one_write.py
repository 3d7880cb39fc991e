"""Answers leave in one write, and nothing that is written is lost or waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import uvicorn
import uvicorn.config
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from rlplatform.serve.one_write import JoiningTransport, OneWriteProtocol, write_answers_at_once

pytestmark = pytest.mark.unit


class Wire:
    """What the kernel would get: one entry for each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def writelines(self, parts: list[bytes]) -> None:
        self.writes.append(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.1", 1)}.get(name, default)


def joined(wire: Wire) -> JoiningTransport:
    return JoiningTransport(cast("asyncio.Transport", wire), asyncio.get_running_loop())


def test_two_writes_of_one_round_are_one() -> None:
    async def told() -> None:
        wire = Wire()
        transport = joined(wire)
        transport.write(b"head")
        assert wire.writes == []
        transport.write(b"body")
        assert wire.writes == [b"headbody"]
        await asyncio.sleep(0)
        assert wire.writes == [b"headbody"]

    asyncio.run(told())


def test_what_is_written_alone_leaves_in_the_next_round() -> None:
    async def told() -> None:
        wire = Wire()
        transport = joined(wire)
        for part in (b"one", b"two", b"three"):
            transport.write(part)
        await asyncio.sleep(0)
        transport.write(b"later")
        await asyncio.sleep(0)
        assert wire.writes == [b"onetwo", b"three", b"later"]

    asyncio.run(told())


def test_closing_sends_what_is_held() -> None:
    async def told() -> None:
        wire = Wire()
        transport = joined(wire)
        transport.write(b"bye")
        transport.close()
        assert wire.writes == [b"bye"]
        assert wire.closed
        await asyncio.sleep(0)
        assert wire.writes == [b"bye"]

    asyncio.run(told())


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with five bytes, or with two pieces on /stream."""
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def asked(path: str) -> list[bytes]:
    """Return what a connection writes when it is asked for a path."""
    config = uvicorn.Config(hello, lifespan="off", log_config=None)
    protocol = OneWriteProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    wire = Wire()
    protocol.connection_made(cast("asyncio.Transport", wire))
    protocol.data_received(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: here\r\n\r\n")
    await asyncio.sleep(0.1)
    return wire.writes


def test_an_answer_is_one_write() -> None:
    async def told() -> None:
        (answer,) = await asked("/")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nhello")

    asyncio.run(told())


def test_pieces_of_a_stream_leave_as_they_come() -> None:
    async def told() -> None:
        head_and_first, second, end = await asked("/stream")
        assert head_and_first.endswith(b"3\r\none\r\n")
        assert second == b"3\r\ntwo\r\n"
        assert end == b"0\r\n\r\n"

    asyncio.run(told())


def test_servers_that_start_afterwards_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", uvicorn.config.HTTP_PROTOCOLS["auto"])
    write_answers_at_once()
    config = uvicorn.Config(hello, log_config=None)
    config.load()
    assert config.http_protocol_class is OneWriteProtocol
