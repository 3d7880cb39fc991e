"""From an exception to an answer: every error of every route leaves with one body and the right status."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from starlette.exceptions import HTTPException

from rlplatform.errors import ResourceError, RlPlatformError
from rlplatform.logs import get_logger
from rlplatform.serve.errors import error_body, status_of, without_folder

RETRY_AFTER_S = 5
_OURS = "The service failed at this request. Its log says why, under the X-Request-ID of this answer."
_NAMES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "ContentTooLarge",
    415: "UnsupportedMediaType",
    421: "MisdirectedRequest",
    422: "ValidationError",
    429: "TooManyRequests",
    431: "HeadersTooLarge",
}
_log = get_logger(__name__)


class HttpError(RlPlatformError):
    """A refusal that only HTTP has."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Refuse a request.

        Args:
            status: HTTP status.
            message: What was wrong and what to do.
            headers: Headers of the answer.
        """
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})

    def __reduce__(self) -> Any:
        """Pickle with every argument."""
        return HttpError, (self.status, str(self), self.headers)


def refusal(error: Exception, home: Path | None = None) -> Response:
    """Return the answer to a request that failed; what is not the client's fault is logged, and its inside stays here.

    Args:
        error: Why it failed.
        home: A folder of the server, whose place the message leaves out.
    """
    headers: dict[str, str] = {}
    if isinstance(error, HttpError):
        status, name, headers = error.status, _NAMES.get(error.status, "Error"), error.headers
        message = str(error)
    elif isinstance(error, HTTPException):
        status, name, headers = error.status_code, _NAMES.get(error.status_code, "Error"), dict(error.headers or {})
        message = str(error.detail)
    elif isinstance(error, RlPlatformError):
        status, name, message = status_of(error), type(error).__name__, str(error)
        if status >= 500 and not isinstance(error, ResourceError):
            _log.error("a request failed: %s", error)
            message = _OURS
    else:
        _log.error("a request failed", exc_info=error)
        status, name, message = 500, "InternalServerError", _OURS
    if home is not None:
        message = without_folder(message, home)
    if status in (429, 503):
        headers = {"Retry-After": str(RETRY_AFTER_S)} | headers
    return Response(error_body(name, message), status, headers, "application/json")


def add_refusals(app: FastAPI, home: Path | None = None) -> None:
    """Answer every error of an app's routes with our body.

    Args:
        app: The app.
        home: A folder of the server, whose place messages leave out.
    """

    async def answer(_: Request, error: Exception) -> Response:
        return refusal(error, home)

    async def invalid(_: Request, error: Exception) -> Response:
        return _invalid(error)

    async def invalid_stream(stream: WebSocket, error: Exception) -> None:
        await stream.send_denial_response(_invalid(error))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(WebSocketRequestValidationError, invalid_stream)
    for kind in (RlPlatformError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _invalid(error: Exception) -> Response:
    assert isinstance(error, ValidationException)
    details = [
        {"field": ".".join(str(part) for part in problem["loc"]), "problem": problem["msg"]}
        for problem in error.errors()
    ]
    message = "; ".join(f"{one['field']}: {one['problem']}" for one in details)
    return Response(error_body("ValidationError", message, details), 422, media_type="application/json")
