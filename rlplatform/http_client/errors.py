"""What can go wrong between the client and the service: one class for each thing that a caller may want to catch."""

from __future__ import annotations

from typing import Any

from rlplatform.errors import RlPlatformError


class ClientError(RlPlatformError):
    """The service refused a request, failed at it, or could not be asked."""

    def __init__(
        self,
        message: str,
        status: int | None = None,
        detail: str = "",
        request_id: str | None = None,
        details: Any = None,
    ) -> None:
        """Tell what happened.

        Args:
            message: What was asked, what was answered, and what to do.
            status: HTTP status. None: there was no answer.
            detail: What the service says of it.
            request_id: Under which the service's log has it.
            details: What a program can read of it, such as the fields that are wrong.
        """
        super().__init__(message)
        self.status, self.detail, self.request_id, self.details = status, detail, request_id, details

    def __reduce__(self) -> Any:
        """Pickle with every argument."""
        return type(self), (str(self), self.status, self.detail, self.request_id, self.details)


class UnreachableError(ClientError):
    """Nobody answers at the address, or the connection broke."""


class WaitTimeoutError(ClientError):
    """What was waited for did not happen in time. It goes on nevertheless."""


class InvalidRequestError(ClientError):
    """400, 413, 415, 422: the request cannot be carried out as it is."""


class KeyRefusedError(ClientError):
    """401, 403: a key is missing, not good, or lacks the scope."""


class NotFoundError(ClientError):
    """404: there is no such experiment, job or model."""


class ConflictError(ClientError):
    """409: what it is about is not in a state for it."""


class BusyError(ClientError):
    """429, 503: the service has too much to do; it was asked again as often as was allowed."""


class ServerError(ClientError):
    """5xx: the service failed. Its log says why, under the request's id."""


_KINDS: dict[int, type[ClientError]] = {
    400: InvalidRequestError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    401: KeyRefusedError,
    403: KeyRefusedError,
    404: NotFoundError,
    409: ConflictError,
    429: BusyError,
    503: BusyError,
}


def error_class(status: int) -> type[ClientError]:
    """Return the class of errors that a status stands for."""
    return _KINDS.get(status, ServerError if status >= 500 else ClientError)
