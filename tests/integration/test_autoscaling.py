"""Ray's own autoscaler: what waits for room makes workers appear, and they leave when it has ended."""

from __future__ import annotations

from pathlib import Path

import yaml

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from tests.cluster_nodes import AUTOSCALED_WORKERS, ray_cluster
from tests.integration.conftest import eventually
from tests.integration.test_nodes import ROOT, go, paced_spec, rlplatform, settled


def two_trials(folder: Path) -> str:
    """Write a search over two trials of one CPU each, and return its path."""
    run = yaml.safe_load(paced_spec(folder, "trial").read_text())
    run["evaluation"] = {"every_steps": run["budget"]["total_timesteps"], "n_episodes": 1, "final_episodes": 0}
    space = {"algorithm.learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}
    search = folder / "search.yaml"
    search.write_text(yaml.safe_dump({"run": run, "space": space, "budget": {"trials": 2, "concurrent": 2}}))
    return str(search)


def test_workers_appear_for_runs_and_a_sweep_and_leave_when_they_have_ended(tmp_path: Path) -> None:
    home = tmp_path / "shared"

    def found() -> list[RunDir]:
        places = (f"{names.RUNS_DIR}/[!.]*", f"{names.SEARCHES_DIR}/*/{names.TRIALS_DIR}/*/seed_*")
        return [RunDir(path.parent) for place in places for path in home.glob(f"{place}/{names.RUN_FILE}")]

    settings = {names.HOME_ENV_VAR: str(home), "PYTHONPATH": str(ROOT)}
    with ray_cluster(autoscaled_cpus=4 / AUTOSCALED_WORKERS, settings=settings) as cluster:
        assert len(cluster.node_ids()) == 1, "there is the head alone"
        drivers = [
            rlplatform(cluster, "tune", two_trials(tmp_path), "--wait-for-resources"),
            rlplatform(cluster, "train", str(paced_spec(tmp_path, "run")), "--seeds", "1,2", "--wait-for-resources"),
        ]
        eventually(lambda: [run.read().state for run in found()] == ["running"] * 4, "all four train", 300)
        assert len(cluster.node_ids()) == 1 + AUTOSCALED_WORKERS
        go(tmp_path)
        assert [driver.wait(300) for driver in drivers] == [0, 0]
        assert [settled(run).state for run in found()] == ["completed"] * 4
        eventually(lambda: len(cluster.node_ids()) == 1, "the workers have left", 180)
