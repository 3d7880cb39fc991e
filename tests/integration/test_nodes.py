"""Several real nodes on one machine: runs and jobs outlive a worker node, a driver, and the head.

`benchmarks/faults.py` does the same at length; docs/results/faults.md has its figures.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rlplatform import names
from rlplatform.artifacts.locks import lock_note
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.train.compare import compare_runs
from rlplatform.train.trainer import Trainer
from tests.cluster_nodes import Node, RayCluster, ray_cluster
from tests.integration.conftest import LEASE_S, eventually, tiny_spec

ROOT = Path(__file__).parents[2]
RLPLATFORM = str(Path(sys.executable).parent / "rlplatform")
STEPS = 8192
MAKE_MANAGER = """
import sys; from pathlib import Path
from rlplatform.cluster.manager_process import cluster_name, make_run_manager
from rlplatform.cluster.run_manager import ManagerOptions
from rlplatform.cluster.session import ray_session
with ray_session(sys.argv[1]) as session:
    options = ManagerOptions(lease_s=float(sys.argv[3]), tick_s=0.1, watch_jobs=True)
    make_run_manager(Path(sys.argv[2]), cluster_name(session), options)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all nodes share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[RayCluster]:
    """A head that trains nothing, and two workers for two runs each; its manager waits less for lost submitters."""
    with ray_cluster(durable=True, settings={names.HOME_ENV_VAR: str(home)}) as cluster:
        cluster.add_worker(num_cpus=2)
        cluster.add_worker(num_cpus=2)
        command = [sys.executable, "-c", MAKE_MANAGER, cluster.address, str(home), str(LEASE_S)]
        subprocess.run(command, cwd="/", env=cluster.environment, check=True, timeout=120)
        yield cluster


def paced_spec(folder: Path, name: str) -> Path:
    """Write the spec of a run that takes minutes, nearly all of them asleep, until `go` is called for the folder."""
    env = {"id": "tests.integration.ray_envs:PacedCartPole", "kwargs": {"until": str(folder / "go")}, "n_envs": 1}
    spec = tiny_spec(
        name=name,
        env={**env, "backend": "sync", "state": "replay"},  # `auto` would try, at this pace
        budget={"total_timesteps": STEPS},
        checkpoint={"every_steps": 256},
        resources={"cpus": 1},
    )
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))
    return path


def go(folder: Path) -> None:
    """Let the runs of a folder's specs train as fast as they can."""
    (folder / "go").touch()


def rlplatform(cluster: RayCluster, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the command line against the cluster."""
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen([RLPLATFORM, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def runs_named(home: Path, name: str, count: int) -> list[RunDir]:
    """Return the runs with a name once all of them are there, by their seeds."""

    def found() -> list[RunDir]:
        runs = [RunDir(path.parent) for path in home.glob(f"{names.RUNS_DIR}/[!.]*/{names.RUN_FILE}")]
        return [run for run in runs if run.read().name == name]

    eventually(lambda: len(found()) == count, f"{count} runs called {name}")
    return sorted(found(), key=lambda run: run.read().seed)


def until_checkpoint(run: RunDir, step: int = 256) -> None:
    """Wait until a run has a checkpoint at or after a step."""
    eventually(lambda: newest_checkpoint(run) >= step, f"run {run.id} has a checkpoint at {step}")


def newest_checkpoint(run: RunDir) -> int:
    """Return the step of a run's newest checkpoint; 0 without one."""
    return max((int(path.name.partition("_")[2]) for path in run.checkpoints_path.glob("step_*")), default=0)


def settled(run: RunDir) -> RunRecord:
    """Return a run's record once it has ended."""
    states = {"completed", "stopped", "failed"}
    eventually(lambda: run.read().state in states, f"run {run.id} has ended: {run.read()}", 90)
    return run.read()


def trainer_pid(run: RunDir) -> int:
    """Return the process that trains a run."""
    eventually(run.is_alive, f"run {run.id} is trained")
    found = re.search(r"process (\d+)", lock_note(run.path / names.LOCK_FILE))
    assert found is not None
    return int(found[1])


def node_of(cluster: RayCluster, run: RunDir) -> Node:
    """Return the node that trains a run."""
    pid = trainer_pid(run)
    above = {process.pid for process in psutil.Process(pid).parents()}
    return next(node for node in cluster.workers if node.process.pid in above)


def assert_as_never_interrupted(run: RunDir, tmp_path: Path) -> None:
    """Train a run's spec in this process, and compare every byte of weights and every metric."""
    trainer = Trainer.create(run.spec(), tmp_path / "reference")
    trainer.fit()
    comparison = compare_runs(run, trainer.run_dir)
    assert comparison.equal, comparison.difference


def test_the_runs_of_a_killed_node_go_on_elsewhere_and_end_the_same(
    cluster: RayCluster, home: Path, tmp_path: Path
) -> None:
    driver = rlplatform(cluster, "train", str(paced_spec(tmp_path, "node")), "--seeds", "1,2")
    runs = runs_named(home, "node", 2)
    until_checkpoint(runs[0])
    node = node_of(cluster, runs[0])
    node.kill()
    cluster.workers.remove(node)
    go(tmp_path)
    assert driver.wait(120) == 0
    records = [settled(run) for run in runs]
    assert [record.state for record in records] == ["completed", "completed"]
    assert records[0].attempts[1].start_step >= 256, "it goes on from its checkpoint"
    assert "node" in (records[0].attempts[0].reason or "")
    assert_as_never_interrupted(runs[0], tmp_path)


def test_the_runs_of_a_killed_driver_stop_and_resume_exactly(cluster: RayCluster, home: Path, tmp_path: Path) -> None:
    driver = rlplatform(cluster, "train", str(paced_spec(tmp_path, "driver")), "--seed", "1")
    (run,) = runs_named(home, "driver", 1)
    until_checkpoint(run)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    eventually(lambda: run.read().reason == "its submitter is gone", f"the run has stopped: {run.read()}")
    assert settled(run).state == "stopped"
    stopped_at = newest_checkpoint(run)
    go(tmp_path)
    assert rlplatform(cluster, "resume", run.id).wait(120) == 0
    assert settled(run).attempts[1].start_step == stopped_at
    assert_as_never_interrupted(run, tmp_path)


def test_runs_and_a_job_outlive_the_head(cluster: RayCluster, home: Path, tmp_path: Path) -> None:
    cluster.add_worker(num_cpus=2)
    submit(cluster, "sweep", [RLPLATFORM, "train", str(paced_spec(tmp_path, "job")), "--seeds", "1,2"])
    assert rlplatform(cluster, "train", str(paced_spec(tmp_path, "left")), "--detach").wait(120) == 0
    runs = [*runs_named(home, "job", 2), *runs_named(home, "left", 1)]
    for run in runs:
        until_checkpoint(run)
    processes = [trainer_pid(run) for run in runs]
    cluster.restart_head()
    assert trainer_pid(runs[2]) == processes[2], "what trains on workers trains on"
    eventually(lambda: status(cluster, "sweep.revived-1") == "RUNNING", "the job has been submitted again", 90)
    go(tmp_path)
    eventually(lambda: status(cluster, "sweep.revived-1") == "SUCCEEDED", "the revived job has ended", 90)
    for run in runs:
        assert settled(run).state == "completed"
        assert all(attempt.start_step >= 256 for attempt in run.read().attempts[1:]), "none from zero"
    assert len(runs_named(home, "job", 2)) == 2, "the job made no run twice"
    assert len(runs[2].read().attempts) == 1
    assert_as_never_interrupted(runs[0], tmp_path)


def submit(cluster: RayCluster, job: str, command: list[str]) -> None:
    """Submit a job as `rlplatform jobs submit` does, without code of its own."""
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.dashboard}
    variables = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
    metadata = json.dumps({names.JOB_NAME_METADATA: job})
    supervisor = [sys.executable, "-m", "rlplatform.cluster.job_supervisor", "--job", job, "--retries", "3", "--"]
    arguments = ["--no-wait", "--submission-id", job, "--metadata-json", metadata, "--runtime-env-json", variables]
    ray = str(Path(sys.executable).parent / "ray")
    done = subprocess.run(
        [ray, "job", "submit", *arguments, "--", *supervisor, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def status(cluster: RayCluster, job: str) -> Any:
    """Return a job's status; None while the head does not know it."""
    jobs = {found["submission_id"]: found["status"] for found in cluster.api("/api/jobs/")}
    assert jobs.get(job) != "FAILED", cluster.api(f"/api/jobs/{job}/logs")
    return jobs.get(job)
