"""The WebSocket /inference/stream: an episode's loop over one connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from starlette.types import Message

from rlplatform.errors import RequestTooLarge, ResourceError, RlPlatformError
from rlplatform.serve.errors import error_body, status_of
from rlplatform.serve.inference import evaluated
from rlplatform.serve.raw import RawResponse
from rlplatform.serve.services import Services
from rlplatform.serve.streams import Episodes

_GOING_AWAY, _REFUSED = 1001, 1008


def stream_router(services: Services) -> APIRouter:
    """Return the router of the stream."""
    router = APIRouter(tags=["inference"])
    streams, limits = services.streams, services.limits

    @router.websocket("/inference/stream")
    async def stream(
        websocket: WebSocket,
        model_name: str,
        n: Annotated[int, Query(ge=1)] = 1,
        deterministic: bool = True,
    ) -> None:
        """Answer observation by observation, until the client leaves. See `rlplatform.serve.streams` for messages."""
        try:
            if streams.count >= limits.max_streams:
                raise ResourceError(
                    f"At most {limits.max_streams} streams are open at a time. Close one, or use /inference."
                )
            if n > limits.max_batch:
                raise RequestTooLarge(f"A stream must have at most {limits.max_batch} episodes, got {n}. Open several.")
            model = await services.models.get(model_name)
        except RlPlatformError as error:
            await _refuse(websocket, error)
            return
        streams.count += 1
        try:
            with services.models.pinned(model):
                await websocket.accept(headers=model.headers)
                await _talk(websocket, services, Episodes(model, n, deterministic=deterministic))
        finally:
            streams.count -= 1

    return router


@dataclass
class _Heard:
    """When something was last said."""

    at: float


async def _talk(websocket: WebSocket, services: Services, episodes: Episodes) -> None:
    receive, send, now = websocket.receive, websocket.send, asyncio.get_running_loop().time
    heard = _Heard(now())
    # One task for each stream, because a timeout for each message takes half as long as a small policy.
    idle = asyncio.create_task(_close_when_idle(websocket, heard, services.limits.stream_idle_s))
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            heard.at = now()
            try:
                answer = await _answered(message, services, episodes)
            except RlPlatformError as error:
                answer = {"type": "websocket.send", "text": _body(error).decode()}
            if answer is not None:
                await send(answer)
    except WebSocketDisconnect:
        return  # The client left before it was answered.
    finally:
        idle.cancel()


async def _close_when_idle(websocket: WebSocket, heard: _Heard, idle_s: float) -> None:
    now = asyncio.get_running_loop().time
    while (left := heard.at + idle_s - now()) > 0:
        await asyncio.sleep(left)
    await websocket.close(_GOING_AWAY, f"nothing was said for {idle_s:g} s")


async def _answered(message: Message, services: Services, episodes: Episodes) -> Message | None:
    text, data = message.get("text"), message.get("bytes")
    if len(text or data or "") > services.limits.max_body_bytes:
        raise RequestTooLarge(f"A message must have at most {services.limits.max_body_bytes} bytes.")
    question = episodes.hear(text) if text is not None else episodes.hear_bytes(data or b"")
    if question is None:
        return None
    model, n = episodes.model, episodes.n
    if text is not None:
        body = await evaluated(model, n, services, lambda: episodes.answer(question))
        return {"type": "websocket.send", "text": body.decode()}
    body = await evaluated(model, n, services, lambda: episodes.answer_bytes(question))
    return {"type": "websocket.send", "bytes": body}


async def _refuse(websocket: WebSocket, error: RlPlatformError) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(RawResponse(_body(error), status=status_of(error)))
    else:
        await websocket.close(_REFUSED, str(error)[:120])


def _body(error: RlPlatformError) -> bytes:
    return error_body(type(error).__name__, str(error))
