"""The only place that connects to Ray: joins a cluster, or starts a local one for as long as it is needed."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from rlplatform import names
from rlplatform.cluster.job import JOB_STOP_WAIT_S
from rlplatform.errors import ResourceError
from rlplatform.logs import get_logger

CONNECT_TIMEOUT_S = 5.0

remote: Any = ray.remote
"""Ray's decorator; its type hints know fewer options than it takes."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class RaySession:
    """A connection to Ray."""

    address: str
    started: bool
    """Whether this process started that Ray, and so ends it."""


@contextmanager
def ray_session(
    address: str | None = None, *, num_cpus: int | None = None, num_gpus: int | None = None
) -> Iterator[RaySession]:
    """Connect to Ray: to `address`, else to RAY_ADDRESS (which a Ray job has), else to a local Ray started for this.

    A connection that exists is used as it is. What was started is ended afterwards, with its temporary folder.

    Args:
        address: `host:port` of a cluster's head, or `auto` for the one on this machine.
        num_cpus: CPUs of a local Ray. None: as many as the machine has.
        num_gpus: GPUs of a local Ray. None: as many as the machine has.

    Raises:
        ResourceError: The cluster cannot be reached.
    """
    if ray.is_initialized():
        yield RaySession(ray.get_runtime_context().gcs_address, started=False)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        gcs_address = _join(address)
        try:
            yield RaySession(gcs_address, started=False)
        finally:
            ray.shutdown()
        return
    temp_dir = _start(num_cpus, num_gpus)
    try:
        yield RaySession(ray.get_runtime_context().gcs_address, started=True)
    finally:
        ray.shutdown()
        shutil.rmtree(temp_dir, ignore_errors=True)


def ensure_ray() -> None:
    """Connect to Ray as `ray_session` does, unless connected; a Ray started here ends with the process."""
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        _start(None, None)


def job_runtime_env() -> dict[str, Any]:
    """Return the code and variables that this driver runs with, for its runs to run with them too.

    Inside a Ray job, that is the job's runtime_env. Elsewhere it is this process's working folder, which workers on the
    same machine (or the same shared storage) can import from.
    """
    runtime_env = dict(ray.get_runtime_context().runtime_env or {})
    if "working_dir" not in runtime_env:
        paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
        env_vars = dict(runtime_env.get("env_vars") or {})
        env_vars.setdefault("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        runtime_env["env_vars"] = env_vars
    plain: dict[str, Any] = json.loads(json.dumps(runtime_env))
    return plain


def cluster_nodes() -> tuple[dict[str, float], ...]:
    """Return the resources of every living node: CPU, GPU, memory (bytes) and custom ones."""
    return tuple(dict(node["Resources"]) for node in ray.nodes() if node["Alive"])


def _join(address: str) -> str:
    if address.startswith(("http://", "https://")):
        raise ResourceError(
            f"{address!r} is the address of a dashboard, to which jobs are submitted. To train on a cluster from here, "
            "give the address of its head, such as `--address 10.0.0.1:6379`, or unset RAY_ADDRESS."
        )
    _check_reachable(address)
    try:
        with _on_loopback() if _is_on_loopback(address) else nullcontext():
            ray.init(
                address=address,
                namespace=names.RAY_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise _unreachable(address, reason) from error
    _silence_raylets()
    return str(ray.get_runtime_context().gcs_address)


def _check_reachable(address: str) -> None:
    """Look whether anybody listens at an address; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # `auto`
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(address, f"{error}.") from error


def _is_on_loopback(address: str) -> bool:
    """Whether a Ray is one that `_start` started in another process: it does not listen on this machine's address."""
    host, _, port = address.rpartition(":")
    if host != "127.0.0.1" or not port.isdecimal():
        return False
    try:
        socket.create_connection((ray.util.get_node_ip_address(), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return True
    return False


def _unreachable(address: str, reason: str) -> ResourceError:
    return ResourceError(
        f"The Ray cluster at {address!r} cannot be reached: {reason} Start one with `ray start --head`, "
        "check RAY_AUTH_MODE and RAY_AUTH_TOKEN, or leave the address out to train on this machine."
    )


def _silence_raylets() -> None:
    """Keep Ray's messages about other processes off our stdout, where tables and JSON are; deaths are told by run.json.

    Ray has no public switch for them (2.60); this is the one that its debugger uses.
    """
    ray._private.worker._worker_logs_enabled = False


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a Ray that is started or joined in the block be one on loopback only, as on Windows and macOS.

    On Linux it would open a dozen ports on every interface, and Ray has no public switch for that (2.60).
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _start(num_cpus: int | None, num_gpus: int | None) -> Path:
    """Start a Ray of our own, on loopback, closed by a token and without dashboard; return its temporary folder."""
    # ray.init turns tokens on by itself and would leave one in ~/.ray; ours lives as long as this process.
    # RAY_AUTH_MODE is read when ray is imported: set here, this process and its servers would disagree (2.60).
    if os.environ.get("RAY_AUTH_MODE", "token") == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(JOB_STOP_WAIT_S))
    # A socket's path has at most 107 characters, and Ray appends some 80.
    temp_dir = Path(tempfile.mkdtemp(prefix="rlplatform-ray-", dir="/tmp" if Path("/tmp").is_dir() else None))
    try:
        with _on_loopback():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                namespace=names.RAY_NAMESPACE,
                _temp_dir=str(temp_dir),
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises even that itself, where a node is slow to come up (2.60)
        ray.shutdown()
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise ResourceError(
            f"A local Ray could not be started: {str(error).strip().splitlines()[0]} "
            "Try `rlplatform doctor`, or train in this process with `--local`."
        ) from error
    except KeyboardInterrupt:
        ray.shutdown()
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise
    _silence_raylets()
    _log.debug("started a local Ray in %s", temp_dir)
    return temp_dir
