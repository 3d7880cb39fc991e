"""What routes take and say alike: who asks, and how errors look in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from rlplatform.serve.auth import Principal

_TEXT = {"type": "string"}
_ERROR_BODY = {
    "type": "object",
    "required": ["detail", "error", "message", "details", "timestamp"],
    "properties": {"detail": _TEXT, "error": _TEXT, "message": _TEXT, "details": {}, "timestamp": _TEXT},
}
_ERRORS = {
    400: "A value is not valid, or a name is in no catalog.",
    401: "A key is needed, or the one given is not good.",
    403: "The key lacks the scope.",
    404: "There is nothing of that name.",
    409: "It is in a state that does not allow this.",
    413: "The body is too large.",
    421: "The service does not answer to that host name.",
    422: "The request is not of this form.",
    429: "A limit is reached; `Retry-After` says when to try again.",
    431: "The headers are too large.",
    503: "Something that is needed does not answer; `Retry-After` says when to try again.",
}


def errors(*beside: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a route's errors: those that any route has, and those given."""
    content = {"application/json": {"schema": _ERROR_BODY}}
    statuses = sorted({400, 401, 403, 413, 421, 422, 429, 431, 503, *beside})
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}


def _who(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Who = Annotated[Principal, Depends(_who)]
"""Who asks; the gate has seen to it that they may."""
ExperimentId = Annotated[str, Path(max_length=64, description="The id of an experiment.")]
ModelName = Annotated[str, Path(max_length=64, description="The name of a model.")]
