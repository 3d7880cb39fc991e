"""The connection to a cluster's dashboard, which takes jobs; its errors in words."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlplatform.cluster.session import CONNECT_TIMEOUT_S
from rlplatform.errors import JobError, ResourceError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_LESS_TOLD = {
    "dashboard.modules.dashboard_sdk": logging.WARNING,
    "dashboard.modules.job.sdk": logging.WARNING,
    "_private.runtime_env.packaging": logging.WARNING,  # which are of files that are large
    "_private.runtime_env.working_dir": logging.ERROR,  # that .git and .venv are left out is as it should be
}


def dashboard_address(address: str | None) -> str:
    """Return the address of the dashboard: as given, else as Ray's variables say, else this machine's.

    Raises:
        ResourceError: It is not an address of a dashboard.
    """
    found = address or next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), DEFAULT_ADDRESS)
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ResourceError(
            f"Jobs go to the dashboard of a cluster, such as `--address {DEFAULT_ADDRESS}`, got {found!r}"
            f"{'' if address else ', as RAY_ADDRESS says'}. `rlplatform train --address HOST:PORT` trains from here."
        )
    return found.rstrip("/")


def connected(address: str | None) -> tuple[JobSubmissionClient, str]:
    """Connect to a dashboard; return Ray's client and the address.

    Raises:
        ResourceError: Nobody answers there, or the token is refused.
    """
    address = dashboard_address(address)
    parts = urlsplit(address)
    try:  # Ray would try for minutes.
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((str(parts.hostname), port), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error
    from ray.job_submission import JobSubmissionClient

    # Ray tells people what its client does and packs, and lets its variables outdo the address that was given.
    for name, level in _LESS_TOLD.items():
        logging.getLogger(f"ray.{name}").setLevel(level)
    before = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        with talking_to(address):
            return JobSubmissionClient(address), address
    finally:
        os.environ.update(before)


@contextlib.contextmanager
def talking_to(address: str) -> Iterator[None]:
    """Turn what Ray's client raises during the block into errors that say what to do.

    Raises:
        ResourceError: The dashboard does not answer, or refuses the token.
        JobError: It does not do what was asked; the message is its own.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(
            f"The cluster at {address} refuses the token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the token that its head was started with."
        ) from error
    except OSError as error:  # which those of requests and aiohttp are
        raise _unreachable(address, str(error)) from error
    except (RuntimeError, ValueError) as error:
        raise JobError(_first_line(error)) from error


def _unreachable(address: str, reason: str) -> ResourceError:
    return ResourceError(
        f"No cluster answers at {address}: {reason}. Start one with `ray start --head`, or give the address of its "
        "dashboard by `--address http://HEAD:8265`; over ssh, forward the port first."
    )


def _first_line(error: Exception) -> str:
    """Return what Ray says, without the traceback of its server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "Traceback" in str(error):
        return f"The cluster could not do that: {lines[-1]}"
    return lines[0] if lines else type(error).__name__
