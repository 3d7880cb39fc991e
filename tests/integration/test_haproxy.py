"""HAProxy with the rules of the service's frontend, before a backend that is a socket of the test."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rlplatform.serve.haproxy import close_config, find_haproxy, frontend_bind

pytestmark = pytest.mark.integration

CONFIG = """\
global
    log {folder}/log.sock len 8192 format rfc5424 local1 debug
defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend http_frontend
    bind 127.0.0.1:8000
    default_backend replica
backend replica
    server one 127.0.0.1:{port}
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE = "400ms"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Front:
    """What stands: where clients go, where the replica listens, where log lines come."""

    def __init__(self, port: int, replica: socket.socket, log: socket.socket) -> None:
        self.port, self.replica, self.log = port, replica, log

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def lines(self) -> list[str]:
        """Return the lines that have come, after the time that one needs."""
        self.log.settimeout(0.5)
        lines = []
        while True:
            try:
                lines.append(self.log.recv(8192).decode())
            except TimeoutError:
                return lines


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    haproxy = find_haproxy()
    assert haproxy is not None
    port, config = free_port(), tmp_path / "haproxy.cfg"
    with (
        socket.create_server(("127.0.0.1", 0)) as replica,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log,
    ):
        log.bind(str(tmp_path / "log.sock"))
        replica.settimeout(20)
        text = CONFIG.format(folder=tmp_path, port=replica.getsockname()[1])
        closed = close_config(text, frontend_bind("127.0.0.1", port))
        assert "timeout http-request 10s" in closed
        config.write_text(closed.replace("timeout http-request 10s", f"timeout http-request {PATIENCE}"))
        process = subprocess.Popen([haproxy, "-db", "-f", str(config)])
        try:
            found = Front(port, replica, log)
            wait_until_it_listens(found)
            yield found
        finally:
            process.terminate()
            process.wait(20)


def wait_until_it_listens(front: Front) -> None:
    for _ in range(200):
        try:
            front.connect().close()
        except OSError:
            time.sleep(0.05)
        else:
            front.lines()
            return
    raise AssertionError("HAProxy does not listen")


def test_a_body_that_does_not_come_is_refused_before_a_replica_hears_of_it(front: Front) -> None:
    with closing(front.connect()) as client:
        client.sendall(b"POST /inference HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
    front.replica.settimeout(0.1)
    with pytest.raises(TimeoutError):
        front.replica.accept()


def test_a_body_beyond_the_buffer_goes_on_as_it_comes(front: Front) -> None:
    with closing(front.connect()) as client:
        client.sendall(
            b"POST /models/a/versions HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000)
        )
        replica, _ = front.replica.accept()
        with closing(replica):
            replica.settimeout(20)
            assert replica.recv(100).startswith(b"POST /models/a/versions")
            time.sleep(0.6)  # Longer than the patience with what has to come at once.
            client.sendall(bytes(50_000))
            replica.sendall(ANSWER)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("path", "n"), [("/inference", 0), ("/v2/models/m/infer", 0), ("/experiments", 1)])
def test_inferences_are_not_logged(front: Front, path: str, n: int) -> None:
    with closing(front.connect()) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        replica, _ = front.replica.accept()
        with closing(replica):
            replica.settimeout(20)
            assert b"x-request-id: " in replica.recv(4000)
            replica.sendall(ANSWER)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert sum(path in line for line in front.lines()) == n
