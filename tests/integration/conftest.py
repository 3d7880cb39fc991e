"""One local Ray and one RunManager for all integration tests; the machine's one GPU is pretended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_state import AT_REST
from rlplatform.cluster.manager_process import run_manager
from rlplatform.cluster.resources import booking
from rlplatform.cluster.run_manager import ManagerOptions
from rlplatform.cluster.run_table import Submission
from rlplatform.cluster.session import ray_session
from rlplatform.specs.run import RunSpec
from rlplatform.train.resolve import resolve

LEASE_S = 4.0


def tiny_spec(**changes: Any) -> RunSpec:
    """Return PPO on CartPole, small enough to train in a second; `changes` replace whole parts."""
    return RunSpec.model_validate(
        {
            "algorithm": {
                "name": "ppo",
                "n_steps": 64,
                "batch_size": 64,
                "n_epochs": 1,
                "policy_kwargs": {"net_arch": [16]},
            },
            "env": {"id": "CartPole-v1", "n_envs": 2, "backend": "sync"},
            "budget": {"total_timesteps": 1024},
            "evaluation": {"every_steps": None, "final_episodes": 0},
            "checkpoint": {"every_steps": 512},
            "tracking": {"log_every_steps": 128, "tensorboard": False, "csv": False},
            "resources": {"cpus": 0.5},
            **changes,
        }
    )


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen within {timeout_s:g} s: {what}"
        time.sleep(0.05)
    return value


@dataclass(frozen=True)
class Runs:
    """The RunManager, and runs in a folder of one test."""

    manager: Any
    home: Path

    def create(self, **changes: Any) -> RunDir:
        """Make a run of `tiny_spec`."""
        return RunDir.create(self.home, resolve(tiny_spec(**changes)))

    def submit(self, *runs: RunDir, owner: str = "test", bundles: Any = None, **options: Any) -> None:
        """Hand runs over; they go on without a submitter unless `detach` is False."""
        options = {"detach": True, **options}
        self.ask(
            "submit",
            [
                asdict(Submission(str(run.path), owner, bundles or booking(tiny_spec()).bundles, **options))
                for run in runs
            ],
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call the RunManager."""
        return ray.get(getattr(self.manager, method).remote(*arguments))

    def request(self, run: RunDir, action: str) -> None:
        """Pause or stop a run."""
        self.ask("request", [str(run.path)], action, f"a test asked to {action}")

    def status(self, run: RunDir) -> dict[str, Any]:
        """Return a run's status."""
        return dict(self.ask("status", [str(run.path)])[0])

    def until_step(self, run: RunDir, step: int) -> None:
        """Wait until a run has trained `step` steps."""
        eventually(lambda: self.status(run)["step"] >= step, f"run {run.id} at step {step}: {self.status(run)}")

    def until_settled(self, *runs: RunDir) -> list[str]:
        """Wait until runs have ended or paused; return their states."""
        paths = [str(run.path) for run in runs]
        statuses = self.ask("wait", paths, 90)
        assert all(status["state"] in AT_REST for status in statuses), statuses
        return [run.read().state for run in runs]

    def actor(self, run: RunDir) -> Any:
        """Return the run's present actor."""
        return ray.get_actor(eventually(lambda: run_actors(run), f"an actor of {run.id}")[0], names.RAY_NAMESPACE)

    def pid(self, run: RunDir) -> int:
        """Return the process of the run's present actor."""
        return int(ray.get(self.actor(run).status.remote())["pid"])


def run_actors(run: RunDir) -> list[str]:
    """Return the names of the living actors of a run."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["name"].startswith(f"{names.RUN_ACTOR_PREFIX}{run.id}:")]


@pytest.fixture(scope="package")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Ray once, as `rlplatform train` does, with more CPUs than there are and one GPU that is not there."""
    os.environ.pop("RAY_ADDRESS", None)
    with ray_session(num_cpus=16, num_gpus=1) as session:
        options = ManagerOptions(lease_s=LEASE_S, tick_s=0.1)
        yield run_manager(session, tmp_path_factory.mktemp("manager"), options)


@pytest.fixture
def runs(local_ray: Any, tmp_path: Path) -> Runs:
    """Return the RunManager with a home for this test."""
    return Runs(local_ray, tmp_path / "home")
