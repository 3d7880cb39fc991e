"""`rlplatform serve` as it is run: Ray, HAProxy with TLS, and two replicas that are attacked in turn."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from rlplatform.names import MODELS_DIR
from rlplatform.serve.limits import BURST_SHARE, LEASE_SHARE
from rlplatform.serve.server import free_port
from rlplatform.store.database import Database, default_url
from rlplatform.store.keys import KeyStore
from rlplatform.store.registry import DatabaseRegistry
from tests.integration.conftest import eventually
from tests.unit.serve.certificates import write_certificate
from tests.unit.serve.policies import write_policy

CLIENTS = 4
PER_MINUTE = 300  # A busy machine must be able to ask more often.
BURST = PER_MINUTE * BURST_SHARE
OBSERVATION = [0.1, 0.0, 0.05, 0.0]


@dataclass(frozen=True)
class Answer:
    """What came of one request."""

    sent: float
    received: float
    status: int
    """0: the connection was cut."""
    version: str


@dataclass
class Service:
    """A service that answers, and what is known of it."""

    process: subprocess.Popen[bytes]
    port: int
    registry: DatabaseRegistry
    secrets: dict[str, str]
    tls: ssl.SSLContext
    output: Path

    def text(self, path: str, key: str) -> str:
        """Return what one path says."""
        headers = {"Authorization": f"Bearer {self.secrets[key]}"}
        return httpx.get(f"https://127.0.0.1:{self.port}{path}", headers=headers, verify=self.tls, trust_env=False).text

    def ask(self, method: str, path: str, body: Any = None, key: str | None = "infer") -> tuple[int, Any]:
        """Send one request over a connection of its own; return its status and its JSON."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=60)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {self.secrets.get(key, key)}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    @contextmanager
    def asked(self, key: str = "infer", model: str = "demo@champion", at: str = "/inference") -> Iterator[list[Answer]]:
        """Ask without a pause from several clients during the block; yield the answers."""
        answers: list[Answer] = []
        ended = threading.Event()
        threads = [threading.Thread(target=self._client, args=(key, model, at, answers, ended)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            ended.set()
            for thread in threads:
                thread.join(60)

    def _client(self, key: str, model: str, at: str, answers: list[Answer], ended: threading.Event) -> None:
        body = json.dumps({"model_name": model, "observation": OBSERVATION})
        headers = {"Authorization": f"Bearer {self.secrets[key]}"}
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=60)
        while not ended.is_set():
            sent, status, version = time.monotonic(), 0, ""
            try:
                connection.request("POST", at, body, headers)
                answer = connection.getresponse()
                answer.read()
                status, version = answer.status, answer.headers.get("X-Model-Version", "")
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it again
            answers.append(Answer(sent, time.monotonic(), status, version))
        connection.close()

    def processes(self) -> list[psutil.Process]:
        """Return every process of the service."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def replicas(self) -> list[psutil.Process]:
        """Return the processes of the gateway's replicas."""
        return [process for process in self.processes() if "ServeReplica:rlplatform" in command(process)]

    def haproxy_folder(self) -> Path:
        """Return the private folder of HAProxy's files."""
        commands = [process.cmdline() for process in self.processes() if process.name() == "haproxy"]
        (folder,) = {Path(command[command.index("-f") + 1]).parents[1] for command in commands}
        return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve two versions of a policy from two replicas."""
    home = tmp_path_factory.mktemp("home")
    database = Database(default_url(home))
    database.upgrade()
    registry = DatabaseRegistry(database, home / MODELS_DIR)
    for value in (1.0, 2.0):
        registry.publish("demo", write_policy(home / f"bundle{value}", value=value))
    registry.set_alias("demo", "champion", 1)
    keys = KeyStore(database)
    secrets = {scope: keys.create(scope, scopes=(scope,)).secret for scope in ("infer", "read", "admin")}
    secrets["limited"] = keys.create("limited", scopes=("infer",), rate_per_min=PER_MINUTE).secret
    certfile, keyfile = write_certificate(home)
    port, output = free_port(), home / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlplatform", "serve", "--port", str(port), "--workers", "2"],
            cwd=home,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RL_API_"))},
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "RLPLATFORM_HOME": str(home),
                "RL_API_REQUIRE_AUTH": "true",
                "RL_API_SSL_CERTFILE": str(certfile),
                "RL_API_SSL_KEYFILE": str(keyfile),
                "OMP_NUM_THREADS": "1",
            },
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(
            lambda: "Ctrl-C ends it" in output.read_text() or process.poll() is not None, "the service serves", 200
        )
        assert process.poll() is None, output.read_text()
        tls = ssl.create_default_context(cafile=certfile)
        yield Service(process, port, registry, secrets, tls, output)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        database.close()


def test_the_service_says_where_it_serves_and_answers_there_over_tls_only(service: Service) -> None:
    assert f"Serving on https://127.0.0.1:{service.port} through HAProxy" in service.output.read_text()
    status, health = service.ask("GET", "/health", key=None)
    assert (status, health["status"]) == (200, "healthy")
    with pytest.raises((OSError, httpx.RemoteProtocolError), match=r"disconnected|reset"):
        httpx.get(f"http://127.0.0.1:{service.port}/health", trust_env=False)


def test_a_published_policy_acts(service: Service) -> None:
    status, answer = service.ask("POST", "/inference", {"model_name": "demo@2", "observation": OBSERVATION})
    assert status == 200
    assert (answer["action"], answer["value"]) == (0, 2.0)


def test_nothing_listens_but_on_loopback(service: Service) -> None:
    listening = {
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in service.processes()
        for connection in connections(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert {name for name, _ in listening} >= {"haproxy", "gcs_server", "raylet"}
    assert any(name.startswith("ray::ServeReplica") for name, _ in listening)
    assert {address for _, address in listening} == {"127.0.0.1"}


def test_haproxys_sockets_are_for_their_user_only(service: Service) -> None:
    folder = service.haproxy_folder()
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert {path.name for path in sockets} >= {"admin.sock"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets if path.name == "admin.sock"} == {0o600}


def test_a_websocket_passes_haproxy(service: Service) -> None:
    url = f"wss://127.0.0.1:{service.port}/inference/stream?model_name=demo@1"
    headers = {"Authorization": f"Bearer {service.secrets['infer']}"}
    with connect(url, ssl=service.tls, additional_headers=headers) as stream:
        for _ in range(3):
            stream.send(json.dumps({"observation": OBSERVATION}))
            assert json.loads(stream.recv(10))["value"] == 1.0


@pytest.mark.parametrize(("key", "expected"), [(None, 401), ("rlp_0_wrong", 401), ("read", 403), ("infer", 200)])
def test_who_lacks_the_key_is_refused(service: Service, key: str | None, expected: int) -> None:
    body = {"model_name": "demo", "observation": OBSERVATION}
    assert service.ask("POST", "/inference", body, key)[0] == expected


def test_a_limit_holds_across_replicas(service: Service) -> None:
    began = time.monotonic()
    with service.asked("limited") as answers:
        time.sleep(8)
    seconds = max(answer.received for answer in answers) - began
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    allowed = BURST + seconds * PER_MINUTE / 60
    held = 2 * PER_MINUTE * LEASE_SHARE  # What each replica has leased when it ends, and not used yet.
    assert 0.9 * (allowed - held) <= statuses[200] <= 1.1 * allowed


def test_every_scrape_has_what_all_replicas_have_counted(service: Service) -> None:
    def scrape() -> float:
        series = re.findall(r'requests_total\{.*route="/inference".*\} (.*)', service.text("/metrics", "read"))
        return sum(float(value) for value in series)

    before = scrape()
    with service.asked() as answers:
        time.sleep(1)
    eventually(lambda: scrape() >= before + len(answers), "all are counted", 30)
    scrapes = [scrape() for _ in range(8)]  # They reach both replicas.
    assert scrapes == [scrapes[0]] * 8


def test_an_alias_that_moves_is_followed_within_a_second_and_no_request_fails(service: Service) -> None:
    current: list[tuple[str, float, float]] = [("demo@1", 0.0, 0.0)]  # version, earliest and latest begin of its time
    with service.asked() as answers:
        for number in (2, 1, 2, 1, 2):
            time.sleep(1.2)
            before = time.monotonic()
            service.registry.set_alias("demo", "champion", number)
            current.append((f"demo@{number}", before, time.monotonic()))
        time.sleep(1.2)
    ends = [latest for _, _, latest in current[1:]] + [time.monotonic()]
    assert len(answers) > 100
    assert {answer.status for answer in answers} == {200}
    for answer in answers:
        assert any(
            version == answer.version and earliest <= answer.received and end >= answer.sent - 1.0
            for (version, earliest, _), end in zip(current, ends, strict=True)
        ), answer
    assert {answer.version for answer in answers} == {"demo@1", "demo@2"}


def test_a_killed_replica_takes_only_what_it_was_answering_with_it(service: Service) -> None:
    victim = service.replicas()[0]
    with service.asked() as answers:
        time.sleep(1)
        killed = time.monotonic()
        victim.kill()
        time.sleep(4)
    failed = [answer for answer in answers if answer.status != 200]
    assert len(answers) > 100
    assert all(answer.sent <= killed + 0.1 for answer in failed), failed
    eventually(lambda: len(service.replicas()) == 2, "the replica is replaced", 90)


def test_a_model_gets_replicas_of_its_own_changes_them_without_a_failed_request_and_loses_them(
    service: Service,
) -> None:
    path, body = "/api/v1/models/demo/deploy", {"model_name": "demo", "observation": OBSERVATION}
    assert service.ask("POST", path, {"version": 1}, "infer")[0] == 403
    assert service.ask("POST", path, {"version": 9}, "admin")[0] == 404
    status, answer = service.ask("POST", path, {"version": 1, "replicas": 1, "cpus": 0.5}, "admin")
    assert (status, answer["path"]) == (202, "/deployments/demo")
    eventually(lambda: service.ask("GET", path, key="read")[1]["status"] == "running", "it runs", 60)
    eventually(lambda: service.ask("POST", "/deployments/demo/inference", body)[0] == 200, "HAProxy knows it", 10)

    with service.asked(model="demo", at="/deployments/demo/inference") as answers:
        assert service.ask("POST", path, {"version": 2, "replicas": 1, "cpus": 0.5}, "admin")[0] == 202
        eventually(lambda: answers and answers[-1].version == "demo@2", "the new replica answers", 60)
        time.sleep(1)
    assert {answer.status for answer in answers} == {200}
    assert {answer.version for answer in answers} == {"demo@1", "demo@2"}
    other = {"model_name": "other", "observation": OBSERVATION}
    assert service.ask("POST", "/deployments/demo/inference", other)[0] == 404
    assert service.ask("POST", "/deployments/demo/inference", body, None)[0] == 401
    (listed,) = service.ask("GET", "/api/v1/deployments", key="read")[1]["deployments"]
    assert (listed["reference"], listed["replicas"], listed["cpus"]) == ("demo@2", 1, 0.5)
    assert service.ask("DELETE", "/models/demo", key="admin")[0] == 409

    assert service.ask("DELETE", path, key="admin")[0] == 200
    assert service.ask("GET", path, key="read")[0] == 404
    eventually(lambda: service.ask("POST", "/deployments/demo/inference", body)[0] == 404, "it is gone", 60)
    assert service.ask("POST", "/inference", body)[0] == 200


def test_sigterm_ends_it_in_order_and_leaves_nothing_behind(service: Service) -> None:
    processes = service.processes()
    folder = service.haproxy_folder()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(90) == 0, service.output.read_text()
    assert "Traceback" not in service.output.read_text()
    eventually(lambda: not any(lives(process) for process in processes), "its processes end", 20)
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError, match="refused"):
        socket.create_connection(("127.0.0.1", service.port), 5)


def command(process: psutil.Process) -> str:
    """Return a process's command line; nothing if it has just ended."""
    try:
        return "".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def connections(process: psutil.Process) -> list[Any]:
    """Return a process's connections; none if it has just ended."""
    try:
        return list(process.net_connections("inet"))
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
