"""Gate: what every request passes before the routes see it. Plain ASGI, because it is paid for by each inference.

In order: the size of the headers, the host's name, who asks and whether they may, how often they ask, the size of the
body. On the way back it adds `X-Process-Time` and `X-Request-ID`, and counts.
"""

from __future__ import annotations

import logging
import re
import secrets
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlplatform.logs import get_logger
from rlplatform.serve.auth import Authenticator, Principal, scope_of
from rlplatform.serve.auth import Scope as Needed
from rlplatform.serve.limits import RateLimiter
from rlplatform.serve.refusals import HttpError, refusal
from rlplatform.serve.settings import ServeSettings
from rlplatform.serve.telemetry import Telemetry

PRINCIPAL = "principal"
"""Key of the request's state under which routes find the `Principal`."""
UPLOAD_PATHS = re.compile(r"/models/[^/]+/versions$")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_log = get_logger(__name__)


class Gate:
    """Middleware around the whole app."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        authenticator: Authenticator,
        limiter: RateLimiter,
        telemetry: Telemetry,
        *,
        names_requests: bool = True,
    ) -> None:
        """Stand before `app`; add `X-Request-ID` to answers if nothing outside does."""
        self._app, self._settings = app, settings
        self._authenticator, self._limiter, self._telemetry = authenticator, limiter, telemetry
        self._hosts, self._names_requests = settings.hosts, names_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = perf_counter(), 500
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers)
        needed = scope_of(scope["method"], scope["path"])

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(b"x-process-time", b"%.6f" % (perf_counter() - began))]
                if self._names_requests:
                    added.append((b"x-request-id", request_id))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            await self._admit(scope, headers, needed)
            limit = self._settings.max_body_bytes
            if UPLOAD_PATHS.search(scope["path"]):
                limit = self._settings.max_upload_bytes
            await self._app(scope, _limited(receive, headers, limit), answer)
        except HttpError as error:
            await refusal(error)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = perf_counter() - began
            self._telemetry.count(scope["method"], route, status, seconds)
            # Single inferences are logged in debug only: they are counted anyway.
            level = logging.DEBUG if status < 400 and needed in ("infer", "open") else logging.INFO
            if _log.isEnabledFor(level):
                _record(level, scope, status, seconds, request_id)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._admit(scope, dict(scope["headers"]), scope_of("WEBSOCKET", scope["path"]))
        except HttpError as error:
            if "websocket.http.response" in scope.get("extensions", {}):
                await refusal(error)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], needed: Needed) -> None:
        """Let a request in, with its principal in its state.

        Args:
            scope: The request.
            headers: Its headers, the last of each name.
            needed: The scope that its path needs.

        Raises:
            HttpError: It may not come in.
        """
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._settings.max_header_bytes:
            raise HttpError(
                431, f"Headers must have at most {self._settings.max_header_bytes} bytes together. Send fewer."
            )
        if self._hosts and _host(headers) not in self._hosts:
            raise HttpError(421, "This service does not answer to that host name. See `RL_API_TRUSTED_HOSTS`.")
        client = scope["client"][0] if scope.get("client") else "unknown"
        given = headers.get(b"authorization")
        if needed == "open" and given is None:
            principal = Principal(f"anonymous@{client}", frozenset())
        else:
            principal = self._authenticator.authenticate(given.decode("latin-1") if given else None, client)
        if not principal.may(needed):
            raise HttpError(403, f"The key lacks the scope `{needed}`. Use another, or make one with that scope.")
        per_minute = principal.rate_per_minute or self._settings.rate_limit_per_minute
        if per_minute is not None and needed != "open":
            wait_s = await self._limiter.wait_for(principal.name, per_minute)
            if wait_s > 0:
                raise HttpError(
                    429,
                    f"At most {per_minute:g} requests a minute are served for this key. Try again in {wait_s:.1f} s.",
                    headers={"Retry-After": str(max(1, round(wait_s)))},
                )
        scope.setdefault("state", {})[PRINCIPAL] = principal


def _record(level: int, scope: Scope, status: int, seconds: float, request_id: bytes) -> None:
    """Write a line of the log."""
    principal: Principal | None = scope.get("state", {}).get(PRINCIPAL)
    _log.log(
        level,
        "%s %s %d",
        scope["method"],
        scope["path"],
        status,
        extra={
            "request_id": request_id.decode(),
            "client": scope["client"][0] if scope.get("client") else None,
            "principal": principal.name if principal else None,
            "seconds": round(seconds, 6),
        },
    )


def _request_id(headers: dict[bytes, bytes]) -> bytes:
    given = headers.get(b"x-request-id", b"")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()


def _host(headers: dict[bytes, bytes]) -> str:
    host = headers.get(b"host", b"").decode("latin-1").lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _limited(receive: Receive, headers: dict[bytes, bytes], limit: int) -> Receive:
    """Return a `receive` that refuses a body above the limit, told by its length or found out while it comes."""
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit() or int(length) > limit:
            raise _too_large(limit)
        return receive  # the server takes no more than the length says
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"A body may have at most {limit:,} bytes. Send less at a time.")
