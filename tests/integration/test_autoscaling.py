"""Ray's own autoscaler: what waits for room makes workers appear, and they leave when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from tests.cluster_nodes import AUTOSCALED_WORKERS, RayCluster, ray_cluster
from tests.integration.conftest import eventually
from tests.integration.test_nodes import ROOT, go, paced_spec, rlplatform, settled

FOUR = 4
"""Runs, or trials, of one CPU each: as many as the workers have together."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head that trains nothing, and an autoscaler that may add workers."""
    home = str(tmp_path_factory.mktemp("shared"))
    settings = {names.HOME_ENV_VAR: home, "PYTHONPATH": str(ROOT)}
    with ray_cluster(autoscaled_cpus=FOUR / AUTOSCALED_WORKERS, settings=settings) as cluster:
        yield cluster


def four_runs(folder: Path) -> tuple[str, ...]:
    """Return the command that trains four runs."""
    return "train", str(paced_spec(folder, "run")), "--seeds", f"1-{FOUR}"


def four_trials(folder: Path) -> tuple[str, ...]:
    """Return the command that searches over four trials."""
    run = yaml.safe_load(paced_spec(folder, "trial").read_text())
    run["evaluation"] = {"every_steps": run["budget"]["total_timesteps"], "n_episodes": 1, "final_episodes": 0}
    space = {"algorithm.learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}
    search = folder / "search.yaml"
    search.write_text(yaml.safe_dump({"run": run, "space": space, "budget": {"trials": FOUR, "concurrent": FOUR}}))
    return "tune", str(search)


@pytest.mark.parametrize(
    ("command", "where"),
    [(four_runs, "runs/[!.]*"), (four_trials, "searches/*/trials/*/seed_*")],
    ids=["runs", "sweep"],
)
def test_workers_appear_for_what_waits_and_leave_when_it_has_ended(
    command: Callable[[Path], tuple[str, ...]], where: str, cluster: RayCluster, tmp_path: Path
) -> None:
    def found() -> list[RunDir]:
        return [RunDir(path.parent) for path in Path(cluster.settings[names.HOME_ENV_VAR]).glob(f"{where}/run.json")]

    def training() -> bool:
        return [run.read().state for run in found()] == ["running"] * FOUR

    assert len(cluster.node_ids()) == 1, "there is the head alone"
    driver = rlplatform(cluster, *command(tmp_path), "--wait-for-resources")
    eventually(training, "all four train", 300)
    assert len(cluster.node_ids()) == 1 + AUTOSCALED_WORKERS
    go(tmp_path)
    assert driver.wait(300) == 0
    assert [settled(run).state for run in found()] == ["completed"] * FOUR
    eventually(lambda: len(cluster.node_ids()) == 1, "the workers have left", 180)
