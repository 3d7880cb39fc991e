"""Routes that cost almost nothing: FastAPI documents them, but neither parses nor validates for them.

An empty FastAPI endpoint spends more time on its parameters and its response than a small policy takes to act.
"""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"


class RawResponse(Response):
    """A response whose body and headers are bytes already."""

    def __init__(self, body: bytes, headers: Headers | None = None, *, media: bytes = JSON, status: int = 200) -> None:
        """Take `body` as it is; `headers` have lower-case names and come on top of type and length."""
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-type", media), (b"content-length", b"%d" % len(body)), *(headers or ())]


class RawRoute(APIRoute):
    """Gives the request to its endpoint as it came, and sends what the endpoint returns.

    Dependencies of the application or of the router are not run: what guards such a route is middleware.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose path matched."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # Answers 405.
            return
        response = await self.respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        """Return the endpoint's answer."""
        response: Response = await self.endpoint(request)
        return response


async def read_body(request: Request) -> bytes:
    """Return a request's body. How large it may be, the gate decides."""
    message = await request.receive()
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await request.receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)
