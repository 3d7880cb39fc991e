"""Jobs against a cluster of their own: exit codes, results that stay, each its own code, stopping.

And what ours add: retries that go on, deadlines, ids that are safe to submit again. The job with a deadline goes on
beside the others, and the last test waits for it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.run_dir import RunDir, list_runs
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.names import RUN_ACTOR_PREFIX
from rlplatform.train.compare import compare_runs
from tests.integration.conftest import eventually

JOBS = Path(__file__).parents[2] / "jobs"
RAY = str(Path(sys.executable).parent / "ray")
TOKEN = "integration-tests-only"
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
SPEC = """
name: {name}
algorithm: {{name: ppo, n_steps: 32, batch_size: 32, n_epochs: 1, policy_kwargs: {{net_arch: [8]}}}}
env: {{id: "own_env:OwnEnv", n_envs: 1, backend: sync}}
budget: {{total_timesteps: {total_timesteps}}}
evaluation: {{every_steps: null, final_episodes: 1}}
checkpoint: {{every_steps: 4096}}
tracking: {{tensorboard: false, csv: false}}
resources: {{cpus: 0.5}}
"""
OWN_ENV = """
import gymnasium as gym
import numpy as np

class OwnEnv(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {{}}

    def step(self, action):
        self.steps += 1
        return np.zeros(2, np.float32), {reward}, self.steps == 10, False, {{}}
"""

LOCAL_SPEC = """
name: killed
algorithm: {name: ppo, n_steps: 64, batch_size: 64, n_epochs: 1, policy_kwargs: {net_arch: [16]}}
env: {id: CartPole-v1, n_envs: 2, backend: sync}
budget: {total_timesteps: 8192}
evaluation: {every_steps: null, final_episodes: 1}
checkpoint: {every_steps: 512}
tracking: {tensorboard: false, csv: false}
"""


@dataclass(frozen=True)
class Head:
    """A cluster of one node that jobs are submitted to."""

    port: int
    dashboard: str
    home: Path
    environment: dict[str, str]

    def api(self, path: str, method: str = "GET") -> Any:
        """Call the dashboard."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"{self.dashboard}{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def submit(self, folder: Path, *arguments: str) -> str:
        """Submit a job with a folder of code, and return its id."""
        command = [
            RAY,
            "job",
            "submit",
            "--no-wait",
            "--address",
            self.dashboard,
            "--submission-id",
            folder.name,
            "--working-dir",
            str(folder),
            "--",
            sys.executable,
            *arguments,
        ]

        def submitted() -> bool:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
            )
            # The dashboard answers before the agent does that starts jobs.
            assert done.returncode == 0 or "No available agent" in done.stderr, done.stderr
            return done.returncode == 0

        eventually(submitted, "the job is submitted")
        return folder.name

    def jobs(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `rlplatform jobs` with arguments; it must end with `code` and show no traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "rlplatform", "jobs", *arguments],
            env={**self.environment, "RAY_ADDRESS": self.dashboard, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def wait(self, job: str) -> dict[str, Any]:
        """Return a job's details once it has ended."""

        def details() -> Any:
            found = self.api(f"/api/jobs/{job}")
            return found if found["status"] in ENDED else None

        return dict(eventually(details, f"job {job} has ended", 150))

    def run(self, name: str) -> RunRecord:
        """Return the record of the run with a name."""

        def found() -> Any:
            return next((record for record in list_runs(self.home) if record.name == name), None)

        return RunRecord.model_validate(eventually(found, f"a run called {name}"))

    def run_actors(self, run: str) -> list[str]:
        """Return the names of the living RunActors of runs whose name begins so."""
        code = (
            "import ray; ray.init(log_to_driver=False, logging_level='ERROR');"
            "print(*[a['name'] for a in ray.util.list_named_actors(all_namespaces=True)])"
        )
        environment = {**self.environment, "RAY_ADDRESS": f"127.0.0.1:{self.port}"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return [name for name in done.stdout.split() if name.startswith(f"{RUN_ACTOR_PREFIX}{run}")]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Start the head of a cluster on ports of its own."""
    port, dashboard, client, agent = (_free_port() for _ in range(4))
    home = tmp_path_factory.mktemp("results")
    temp_dir = Path("/tmp") / f"rlplatform-test-{os.getpid()}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RLPLATFORM_"))},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RLPLATFORM_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    command = [
        RAY,
        "start",
        "--head",
        "--block",
        "--num-cpus=4",
        "--num-gpus=0",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        f"--ray-client-server-port={client}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--temp-dir={temp_dir}",
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = Head(port, f"http://127.0.0.1:{dashboard}", home, environment)

    def answers() -> bool:
        try:
            return isinstance(started.api("/api/jobs/"), list)
        except OSError:
            assert process.poll() is None, f"ray start ended with {process.returncode}"
            return False

    eventually(answers, "the dashboard answers")
    yield started
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(temp_dir, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def job_folder(path: Path, reward: float, total_timesteps: int = 256) -> Path:
    """Write a job's code: our entry point, an environment of one's own, and a spec that names it."""
    shutil.copytree(JOBS, path / "jobs")
    (path / "own_env.py").write_text(OWN_ENV.format(reward=reward))
    (path / "spec.yaml").write_text(SPEC.format(name=path.name, total_timesteps=total_timesteps))
    return path


@pytest.fixture(scope="module")
def endless(head: Head, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Submit a job that only its deadline ends; return the arguments that did."""
    folder = job_folder(tmp_path_factory.mktemp("jobs") / "ticking", 1, 10**9)
    options = ["--id", "ticking", "--deadline", "80s", "--retries", "1", "--working-dir", str(folder)]
    arguments = ["submit", *options, "--", sys.executable, "jobs/train.py", "spec.yaml"]
    assert head.jobs(*arguments).stdout == "ticking\n"
    return arguments


def test_submitting_a_job_again_changes_nothing_and_mistakes_are_told(head: Head, endless: list[str]) -> None:
    assert "is there already" in head.jobs(*endless).stderr
    assert "with another command" in head.jobs(*endless, "--seed", "3", code=2).stderr
    listed = [job["id"] for job in json.loads(head.jobs("list", "--json").stdout)]
    assert listed.count("ticking") == 1
    assert "Did you mean 'ticking'?" in head.jobs("status", "tickin_", code=2).stderr
    assert "refuses the token" in head.jobs("list", code=2, RAY_AUTH_TOKEN="another").stderr


def test_the_driver_of_a_job_is_killed_and_its_run_trains_on(head: Head, endless: list[str]) -> None:
    run = RunDir.open(head.home, head.run("ticking").id)
    eventually(lambda: run.read().state == "running", "the run trains", 120)
    os.kill(run.read().machine.pid, signal.SIGKILL)
    assert run.read().state == "running"


def test_two_jobs_train_with_their_own_code_and_leave_their_results(head: Head, tmp_path: Path) -> None:
    folders = [job_folder(tmp_path / f"reward-{reward}", reward) for reward in (1, 2)]
    jobs = [head.submit(folder, "jobs/train.py", "spec.yaml") for folder in folders]
    for job, episode_return in zip(jobs, (10.0, 20.0), strict=True):
        details = head.wait(job)
        assert (details["status"], details["driver_exit_code"]) == ("SUCCEEDED", 0), details["message"]
        record = head.run(job)
        assert record.state == "completed"
        assert record.result is not None
        assert record.result["final"]["return_mean"] == episode_return  # type: ignore[index, call-overload]
        assert RunDir.open(head.home, record.id).metrics_path.stat().st_size > 0
    assert head.run_actors("reward-") == []


def test_a_job_with_a_wrong_spec_fails_with_the_users_exit_code(head: Head, tmp_path: Path) -> None:
    folder = job_folder(tmp_path / "wrong", 1)
    (folder / "spec.yaml").write_text("algorithm: {name: pop}\nenv: {id: CartPole-v1}\nbudget: {total_timesteps: 1}\n")
    details = head.wait(head.submit(folder, "jobs/train.py", "spec.yaml"))
    assert (details["status"], details["driver_exit_code"]) == ("FAILED", 2)
    assert "ppo" in details["message"]
    assert "Traceback" not in details["message"]


def test_stopping_a_job_stops_its_run_with_a_checkpoint_and_leaves_no_actor(head: Head, tmp_path: Path) -> None:
    folder = job_folder(tmp_path / "endless", 1, 10**9)
    command = ("--", sys.executable, "jobs/train.py", "spec.yaml")
    head.jobs("submit", "--id", "endless", "--working-dir", str(folder), *command)
    eventually(lambda: head.run("endless").state == "running", "the run trains")
    assert "is STOPPED" in head.jobs("stop", "endless").stderr
    record = head.run("endless")
    assert (record.state, record.reason) == ("stopped", "its submitter got SIGTERM")
    assert list(RunDir.open(head.home, record.id).checkpoints_path.glob("step_*"))
    assert head.run_actors("endless") == []


def test_a_job_whose_trainer_is_killed_ends_with_the_same_bytes(head: Head, tmp_path: Path) -> None:
    folder = job_folder(tmp_path / "killed", 1)
    (folder / "spec.yaml").write_text(LOCAL_SPEC)
    train = ("train", str(folder / "spec.yaml"), "--local")
    undisturbed = subprocess.Popen(
        [sys.executable, "-m", "rlplatform", *train],
        env={**os.environ, "RLPLATFORM_HOME": str(tmp_path / "undisturbed")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    command = ("--", sys.executable, "jobs/train.py", "spec.yaml", "--local")
    head.jobs("submit", "--id", "killed", "--working-dir", str(folder), *command)
    run = RunDir.open(head.home, head.run("killed").id)
    eventually(lambda: list(run.checkpoints_path.glob("step_*")), "a checkpoint")
    os.kill(run.read().attempts[-1].machine.pid, signal.SIGKILL)
    assert "retry 1 of 3" in head.jobs("logs", "killed", "--follow").stdout
    record = run.read()
    assert (record.state, record.job, len(record.attempts)) == ("completed", "killed", 2)
    assert record.attempts[1].start_step > 0
    assert undisturbed.wait(120) == 0
    assert [one.id for one in list_runs(head.home) if one.job == "killed"] == [record.id]
    assert compare_runs(run, RunDir.open(tmp_path / "undisturbed", "killed")).equal


def test_a_deadline_stops_with_a_checkpoint_the_run_that_the_second_driver_took_over(
    head: Head, endless: list[str]
) -> None:
    details = head.wait("ticking")
    assert (details["status"], details["driver_exit_code"]) == ("FAILED", 124), details["message"]
    assert "retry 1 of 1" in head.jobs("logs", "ticking").stdout
    record = head.run("ticking")
    assert (record.state, record.reason) == ("stopped", "its submitter got SIGTERM")
    assert [one.id for one in list_runs(head.home) if one.job == "ticking"] == [record.id]
    assert list(RunDir.open(head.home, record.id).checkpoints_path.glob("step_*"))
    assert head.run_actors("ticking") == []
    assert "its deadline was reached" in head.jobs("status", "ticking").stdout
