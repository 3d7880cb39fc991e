"""A Ray cluster of several nodes on this machine, each with processes of its own, whose nodes can be killed.

    with ray_cluster(tmp_path) as cluster:
        worker = cluster.add_worker(num_cpus=2)
        worker.kill()            # SIGKILL to all of the node's processes, as when its machine is gone
        cluster.head.kill()
        cluster.restart_head()   # the same port, and what RocksDB kept of the cluster's state

Everything asks for a token, and the dashboard listens on 127.0.0.1 only. `cluster.environment` is for clients, which
are processes of their own: a client in this one would die with the node that it connects through.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

RAY = str(Path(sys.executable).parent / "ray")
TOKEN = "tests-and-benchmarks-only"
HOST = "127.0.0.1"
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "OMP_NUM_THREADS": "1",
    "RAY_JOB_STOP_WAIT_TIME_S": "60",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_raylet_start_wait_time_s": "60",
    # A node that is silent for three seconds is dead; Ray's own patience is some twenty.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
_COMMON = (
    "--block",
    "--disable-usage-stats",
    f"--node-ip-address={HOST}",
    "--min-worker-port=0",
    "--max-worker-port=0",
)
AUTOSCALED_WORKERS = 2
FAKE_HEAD_ID = f"{'f' * 51}00000"
_FAKE_HEAD = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_ID,
}
_START_TIMEOUT_S = 300.0
_START_ATTEMPTS = 4
_STOP_TIMEOUT_S = 20.0


@dataclass
class Node:
    """One node: the process `ray start --block` and all that it started."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether the node's first process lives."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Send SIGKILL to every process of the node."""
        tree = self._tree()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(tree, _STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Stop every process of the node where it is, as when its machine hangs or its network is cut."""
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def stop(self) -> None:
        """End the node as its operator would; kill it if it takes too long."""
        if not self.alive:
            return
        tree = self._tree()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_TIMEOUT_S)
        for process in psutil.wait_procs(tree, 1)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@dataclass
class RayCluster:
    """A head and workers; `ray_cluster` makes one and ends it."""

    temp_dir: Path
    settings: Mapping[str, str]
    port: int
    dashboard_port: int
    head_options: tuple[str, ...]
    autoscaled_cpus: float | None = None
    """CPUs of each worker that the autoscaler adds and takes away. None: there is none."""
    head: Node = field(init=False)
    workers: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        """What clients join: `host:port` of the head."""
        return f"{HOST}:{self.port}"

    @property
    def dashboard(self) -> str:
        """What jobs are submitted to."""
        return f"http://{HOST}:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the cluster's own processes, and of clients in processes of their own."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RLPLATFORM_"))}
        return {**outside, **SETTINGS, **self.settings}

    def start_head(self) -> None:
        """Start the head, and wait until jobs can be submitted to it."""
        self.head = self._start_until(
            self._answers,
            "--head",
            f"--port={self.port}",
            f"--dashboard-host={HOST}",
            f"--dashboard-port={self.dashboard_port}",
            f"--temp-dir={self.temp_dir}",
            *self.head_options,
            *self._autoscaling(),
        )

    def restart_head(self) -> None:
        """Start the head again after its death, on the same ports and the same storage."""
        self.head.kill()
        self.start_head()

    def add_worker(self, *, num_cpus: float = 2, num_gpus: int = 0) -> Node:
        """Start a worker node, and wait until the cluster knows it."""
        before = len(self.node_ids())
        options = (f"--address={self.address}", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}")
        node = self._start_until(lambda: len(self.node_ids()) > before, *options)
        self.workers.append(node)
        return node

    def node_ids(self) -> list[str]:
        """Return the ids of the nodes that Ray takes for alive."""
        answer = self.api("/api/v0/nodes?limit=1000")
        nodes = answer["data"]["result"]["result"]
        return [node["node_id"] for node in nodes if node["state"] == "ALIVE"]

    def api(self, path: str, method: str = "GET") -> Any:
        """Call the dashboard."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"{self.dashboard}{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End every node and remove the cluster's files."""
        for node in [*self.workers, *([self.head] if hasattr(self, "head") else [])]:
            node.stop()
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _autoscaling(self) -> list[str]:
        """Return the option that has Ray's own autoscaler start real nodes on this machine, within the head's process.

        Ray's name for that, `type: fake_multinode`, needs a file that is not in the wheel (2.60).
        """
        if self.autoscaled_cpus is None:
            return []
        provider = {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": FAKE_HEAD_ID,
            "gcs_address": self.address,
            "launch_multiple": True,
        }
        nothing = {"node_config": {}, "min_workers": 0}
        config = {
            "cluster_name": "tests",
            "provider": provider,
            "max_workers": AUTOSCALED_WORKERS,
            "idle_timeout_minutes": 0.1,
            "upscaling_speed": 1.0,
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {**nothing, "resources": {"CPU": 0}, "max_workers": 0},
                "worker": {**nothing, "resources": {"CPU": self.autoscaled_cpus}, "max_workers": AUTOSCALED_WORKERS},
            },
        }
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        path = self.temp_dir / "autoscaling.json"
        empty: dict[str, Any] = {
            **{f"{name}_commands": [] for name in commands},
            "cluster_synced_files": [],
            "file_mounts": {},
        }
        path.write_text(json.dumps({**empty, **config}))
        return [f"--autoscaling-config={path}"]

    def _start_until(self, joined: Callable[[], bool], *options: str) -> Node:
        """Start a node, and wait until it has joined; again if Ray gives it up, as a busy machine makes it do.

        A node whose agents take more than 15 s to start ends itself, which no setting of Ray changes (2.60).
        """
        for _ in range(_START_ATTEMPTS):
            # Ray takes this file for a sign that a cluster runs here; after a kill it is a lie.
            if "--head" in options:
                (self.temp_dir / "ray_current_cluster").unlink(missing_ok=True)
            node = self._start(*options)
            try:
                wait_until(lambda node=node: not node.alive or joined(), f"a node has joined: {options}")  # type: ignore[misc]
            except BaseException:
                node.stop()
                raise
            if node.alive:
                return node
        raise RuntimeError(f"`ray start` ended with {node.process.returncode}: {node.log.read_text()[-2000:]}")

    def _start(self, *options: str) -> Node:
        ports = [f"--dashboard-agent-listen-port={free_port()}"]
        environment = self.environment
        if "--head" in options:
            ports.append(f"--ray-client-server-port={free_port()}")
            environment |= _FAKE_HEAD if self.autoscaled_cpus is not None else {}
        log = self.temp_dir / f"start-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [RAY, "start", *_COMMON, *ports, *options],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Node(process, log)

    def _answers(self) -> bool:
        try:
            return isinstance(self.api("/api/jobs/"), list) and bool(self.node_ids())
        except OSError:
            return False


@contextlib.contextmanager
def ray_cluster(
    *,
    num_cpus: int = 0,
    durable: bool = False,
    settings: Mapping[str, str] | None = None,
    autoscaled_cpus: float | None = None,
) -> Iterator[RayCluster]:
    """Start the head of a cluster for the block, and end all of its nodes afterwards.

    Args:
        num_cpus: CPUs of the head; with none, everything that books some runs on workers.
        durable: Whether the cluster's state is kept in RocksDB and outlives the head.
        settings: More variables of the cluster and its clients, such as RLPLATFORM_HOME.
        autoscaled_cpus: CPUs of each of up to `AUTOSCALED_WORKERS` workers that appear when something is queued, and
            leave when they have been idle for six seconds. None: nodes appear by `add_worker` only.
    """
    # A socket's path has at most 107 characters, and Ray appends some 80.
    temp_dir = Path(tempfile.mkdtemp(prefix="rlp-nodes-", dir="/tmp"))
    storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(temp_dir / "gcs")} if durable else {}
    options = (f"--num-cpus={num_cpus}", "--num-gpus=0")
    cluster = RayCluster(temp_dir, {**storage, **(settings or {})}, free_port(), free_port(), options, autoscaled_cpus)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.stop()


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = _START_TIMEOUT_S) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not happen within {timeout_s:g} s: {what}")
        time.sleep(0.1)
    return value


def free_port() -> int:
    """Return a port that nobody listens on, outside of Ray's worker ports and of those the system hands out."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind((HOST, port))
            return port
