"""What each error is to a client: one table from exceptions to statuses, and one body for all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from rlplatform.errors import (
    BundleError,
    CheckpointError,
    Conflict,
    ExperimentNotFound,
    KeyNotFound,
    LimitReached,
    ModelNotFound,
    PolicyInputError,
    RegistryError,
    RequestError,
    RequestTooLarge,
    ResourceError,
    RlPlatformError,
    RunNotFound,
    RunStateError,
    SpecError,
    StoreError,
    UnknownNameError,
)

_STATUSES: tuple[tuple[type[RlPlatformError], int], ...] = (
    (RequestError, 422),
    (RequestTooLarge, 413),
    (PolicyInputError, 400),
    (ModelNotFound, 404),
    (BundleError, 500),
    (RegistryError, 400),
    (ResourceError, 503),
    (StoreError, 503),
    (LimitReached, 429),
    (Conflict, 409),
    (RunStateError, 409),
    (CheckpointError, 409),
    (ExperimentNotFound, 404),
    (KeyNotFound, 404),
    (RunNotFound, 404),
    (SpecError, 400),
    (UnknownNameError, 400),
)
"""The first that fits decides, so a class stands before its base."""


def status_of(error: RlPlatformError) -> int:
    """Return the HTTP status that says whose fault an error is: 4xx the client's, 5xx ours."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def without_folder(text: str, folder: Path) -> str:
    """Return a text for clients: where a folder of the server lies is left out of the paths in it."""
    return text.replace(f"{folder}/", "").replace(str(folder), folder.name)


def error_body(name: str, message: str, details: Any = None) -> bytes:
    """Return the JSON of an error, with the fields of both documents: `detail`, and the other four.

    Args:
        name: What kind of error, such as `ModelNotFound`.
        message: What, got, rule, and what to do.
        details: Any JSON that helps a program; None where the message says all.
    """
    now = datetime.now(UTC).isoformat()
    body = {"detail": message, "error": name, "message": message, "details": details, "timestamp": now}
    return msgspec.json.encode(body)
