"""An autoscaler of Ray's own: runs that wait for room make workers appear, which leave when the runs have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlplatform import names
from tests.cluster_nodes import AUTOSCALED_WORKERS, ray_cluster
from tests.integration.conftest import eventually
from tests.integration.test_nodes import go, paced_spec, rlplatform, runs_named, settled


@pytest.mark.parametrize("what", ["runs"])
def test_workers_appear_for_what_is_queued_and_leave_when_it_has_ended(what: str, tmp_path: Path) -> None:
    home = tmp_path / "shared"
    with ray_cluster(autoscaled_cpus=2, settings={names.HOME_ENV_VAR: str(home)}) as cluster:
        assert len(cluster.node_ids()) == 1, "there is the head alone"
        spec = str(paced_spec(tmp_path, what))
        driver = rlplatform(cluster, "train", spec, "--seeds", "1-4", "--wait-for-resources")
        runs = runs_named(home, what, 4)
        eventually(lambda: all(run.read().state == "running" for run in runs), "four runs of one CPU train", 90)
        assert len(cluster.node_ids()) == 1 + AUTOSCALED_WORKERS
        go(tmp_path)
        assert driver.wait(120) == 0
        assert {settled(run).state for run in runs} == {"completed"}
        eventually(lambda: len(cluster.node_ids()) == 1, "the workers have left", 90)
