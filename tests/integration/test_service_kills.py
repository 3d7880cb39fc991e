"""`rlplatform serve` while four experiments train: everything is killed, then its replica and its RunManager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from rlplatform.specs.settings import Settings
from rlplatform.store.database import open_database
from rlplatform.store.experiments import ExperimentStore
from rlplatform.store.registry import open_registry
from tests.integration.conftest import eventually
from tests.integration.experiments import TINY, assert_without_gaps
from tests.unit.serve.policies import write_policy

N_EXPERIMENTS = 4


@contextmanager
def serving(home: Path, port: int) -> Iterator[psutil.Process]:
    """Run the service, and kill it with everything that it started when the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RL_API_"))}
    environment |= {"RLPLATFORM_HOME": str(home), "RL_API_MAX_CONCURRENT_EXPERIMENTS": str(N_EXPERIMENTS)}
    # What takes the connections does not matter here, and a busy machine is slow to have it ready.
    environment |= {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    command = [sys.executable, "-m", "rlplatform", "serve", "--port", str(port)]
    with (home.parent / "serve.log").open("ab") as log:
        service = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home.parent)
    tree = psutil.Process(service.pid)
    try:
        yield tree
    finally:
        kill(tree)
        service.wait()


def kill(tree: psutil.Process) -> None:
    """Send SIGKILL to a process and all that it started; those that are born meanwhile too."""
    while alive := [one for one in [tree, *descendants(tree)] if one.is_running() and one.status() != "zombie"]:
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)


def descendants(tree: psutil.Process) -> list[psutil.Process]:
    """Return the processes that a process started, and those that they did."""
    with suppress(psutil.NoSuchProcess):
        return list(tree.children(recursive=True))
    return []


def named(tree: psutil.Process, title: str) -> list[psutil.Process]:
    """Return the processes below one whose title begins so."""
    found = []
    for process in descendants(tree):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(title):
                found.append(process)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    """Send one request; None while the service does not answer it, or its proxy does not know it yet."""
    with suppress(httpx.TransportError):
        answer = httpx.request(method, f"http://127.0.0.1:{port}{path}", json=body, timeout=30)
        return answer.json() if answer.status_code < 300 else None
    return None


def until_it_answers(service: psutil.Process, port: int) -> None:
    """Wait until the service answers; an error if it ends instead."""

    def answers() -> Any:
        assert service.is_running(), "the service has ended: see serve.log"
        assert service.status() != "zombie", "the service has ended: see serve.log"
        return ask(port, "GET", "/health")

    eventually(answers, "the service answers", 180)


def until_all_train(port: int, ids: list[str]) -> None:
    """Wait until each experiment's run trains, and is past its first checkpoint."""

    def train() -> bool:
        found = [run for id in ids for run in (ask(port, "GET", f"/experiments/{id}") or {}).get("runs", ())]
        return len(found) == len(ids) and all(run["status"] == "running" and run["timesteps"] >= 512 for run in found)

    eventually(train, "all train", 240)


def test_four_experiments_survive_the_death_of_cluster_manager_and_replica(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    open_registry(Settings(home=home)).publish("kept", write_policy(tmp_path / "bundle"))
    with serving(home, port) as tree:
        until_it_answers(tree, port)
        ids = []
        for number in range(N_EXPERIMENTS):
            body = {**TINY, "name": f"number {number}", "total_timesteps": 16_000}
            ids.append(ask(port, "POST", "/experiments", body)["id"])
            ask(port, "POST", f"/experiments/{ids[-1]}/train")
        assert ask(port, "POST", "/api/v1/models/kept/deploy", {"cpus": 0})["status"] == "deploying"
        until_all_train(port, ids)
    with serving(home, port) as tree:
        until_it_answers(tree, port)
        until_all_train(port, ids)
        for title in ("ray::RunManager", "ray::ServeReplica:rlplatform:gateway"):
            (victim,) = named(tree, title)
            victim.send_signal(signal.SIGKILL)
        store = ExperimentStore(open_database(Settings(home=home)))
        eventually(lambda: not store.unfinished(), "all are over", 240)
        question = {"model_name": "kept", "observation": [0.0] * 4}
        eventually(lambda: ask(port, "POST", "/deployments/kept/inference", question), "it is deployed again", 60)
    experiments = [store.get(id) for id in ids]
    assert [one.status for one in experiments] == ["completed"] * N_EXPERIMENTS, [one.reason for one in experiments]
    assert all(len(one.run_ids) == 1 for one in experiments)
    assert_without_gaps(home)
    registry = open_registry(Settings(home=home))
    assert [registry.model(f"number-{number}").versions for number in range(N_EXPERIMENTS)] == [(1,)] * N_EXPERIMENTS
