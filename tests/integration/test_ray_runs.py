"""Runs on Ray: together, one after another, paused, killed, without their submitter, without their manager."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from rlplatform import names
from rlplatform.cluster.runner import RayOptions, train_on_ray
from rlplatform.errors import ResourceError, RunStateError
from rlplatform.train.compare import compare_runs
from rlplatform.train.progress import Progress
from tests.integration.conftest import Runs, eventually, run_actors, tiny_spec

ENDLESS: dict[str, Any] = {"budget": {"total_timesteps": 10**9}, "checkpoint": {"every_steps": 4096}}
MIDDLING: dict[str, Any] = {"budget": {"total_timesteps": 8192}, "checkpoint": {"every_steps": 1024}}


def test_several_seeds_train_and_tell_their_progress(runs: Runs) -> None:
    seen: list[Progress] = []
    records = train_on_ray(
        [tiny_spec(seed=1), tiny_spec(seed=2)], runs.home, RayOptions(limit=1), on_progress=seen.extend
    )
    assert [(record.state, record.seed) for record in records] == [("completed", 1), ("completed", 2)]
    assert {progress.run_id for progress in seen} == {record.id for record in records}
    assert seen[-1].step == seen[-1].total_timesteps == 1024
    first, second = (record.attempts[0] for record in records)
    assert first.ended_at is not None
    assert first.ended_at <= second.started_at, "the limit is one run at a time"


def test_more_than_the_cluster_has_is_refused_before_a_run_is_made(runs: Runs) -> None:
    said = "asks for 100 CPUs and 0 GPUs; the cluster has 16 CPUs and 1 GPU on 1 node"
    with pytest.raises(ResourceError, match=said):
        train_on_ray([tiny_spec(resources={"cpus": 100})], runs.home)
    assert not (runs.home / names.RUNS_DIR).exists()


def test_eight_eighths_of_a_gpu_train_together_and_a_ninth_waits(runs: Runs) -> None:
    eighth = [{"CPU": 0.5, "GPU": 0.125}]
    nine = [runs.create(**ENDLESS, seed=seed) for seed in range(9)]
    runs.submit(*nine, bundles=eighth)
    for run in nine[:8]:
        runs.until_step(run, 128)
    assert runs.status(nine[8])["state"] == "queued"
    assert run_actors(nine[8]) == []
    runs.request(nine[0], "stop")
    runs.until_step(nine[8], 128)
    for run in nine[1:]:
        runs.request(run, "stop")
    assert set(runs.until_settled(*nine)) == {"stopped"}


def test_a_killed_run_is_started_again_and_ends_as_one_never_killed(runs: Runs) -> None:
    killed, whole = runs.create(**MIDDLING), runs.create(**MIDDLING)
    runs.submit(killed, whole)
    runs.until_step(killed, 2048)
    os.kill(runs.pid(killed), signal.SIGKILL)
    assert runs.until_settled(killed, whole) == ["completed", "completed"]
    record = killed.read()
    assert record.retries == 1
    assert record.attempts[1].start_step >= 1024, "it starts from a checkpoint"
    assert record.attempts[0].reason is not None
    assert "Retry 1 of 3" in record.attempts[0].reason
    comparison = compare_runs(killed, whole)
    assert comparison.equal, comparison.difference


def test_a_run_that_keeps_dying_fails_with_the_reason(runs: Runs) -> None:
    run = runs.create(**ENDLESS)
    runs.submit(run, max_retries=1)
    for attempt in range(2):
        eventually(lambda: len(run.read().attempts) > attempt, "the attempt has begun")  # noqa: B023
        os.kill(runs.pid(run), signal.SIGKILL)
        eventually(lambda: len(run.read().attempts) > attempt + 1 or run.read().state == "failed", "noticed")  # noqa: B023
    assert runs.until_settled(run) == ["failed"]
    assert "died 2 times; 1 retries are allowed" in (run.read().reason or "")


def test_a_paused_run_frees_its_resources_and_resumes_exactly(runs: Runs) -> None:
    paused, whole = runs.create(**MIDDLING), runs.create(**MIDDLING)
    runs.submit(paused, whole)
    runs.until_step(paused, 1500)
    runs.request(paused, "pause")
    assert runs.until_settled(paused) == ["paused"]
    eventually(lambda: not run_actors(paused), "its actor is gone")
    runs.ask("resume", [str(paused.path)])
    assert runs.until_settled(paused, whole) == ["completed", "completed"]
    comparison = compare_runs(paused, whole)
    assert comparison.equal, comparison.difference


def test_a_request_in_the_runs_folder_reaches_queued_and_training_runs(runs: Runs) -> None:
    training, queued = runs.create(**ENDLESS), runs.create(**ENDLESS)
    runs.submit(training, queued, limit=1, owner="one at a time")
    runs.until_step(training, 128)
    assert queued.read().reason == "1 runs of this submission are active, its limit is 1"
    queued.request("stop")
    assert runs.until_settled(queued) == ["stopped"]
    training.request("stop")
    assert runs.until_settled(training) == ["stopped"]


def test_the_runs_of_a_vanished_submitter_stop_with_a_checkpoint(runs: Runs) -> None:
    training, queued = runs.create(**ENDLESS), runs.create(**ENDLESS)
    runs.submit(training, queued, owner="vanishing", detach=False, limit=1)
    runs.ask("renew", "vanishing")
    assert runs.until_settled(training, queued) == ["stopped", "stopped"]
    assert training.read().reason == "its submitter is gone"
    assert list(training.checkpoints_path.glob("step_*"))
    eventually(lambda: not run_actors(training) + run_actors(queued), "no actor is left")


def test_a_manager_that_was_killed_finds_its_runs_again(runs: Runs) -> None:
    training, queued, paused = (runs.create(**ENDLESS) for _ in range(3))
    runs.submit(paused)
    runs.until_step(paused, 128)
    runs.request(paused, "pause")
    runs.until_settled(paused)
    runs.submit(training, queued, owner="patient", limit=1)
    runs.until_step(training, 256)
    pid, step = runs.pid(training), runs.status(training)["step"]
    os.kill(runs.ask("pid"), signal.SIGKILL)
    runs.until_step(training, step + 256)
    assert runs.pid(training) == pid, "the run trained on in the same process"
    assert len(training.read().attempts) == 1
    assert {status["run_id"]: status["state"] for status in runs.ask("runs")} == {
        training.id: "running",
        queued.id: "queued",
        paused.id: "paused",
    }
    for run in (training, queued, paused):
        runs.request(run, "stop")
    eventually(lambda: runs.ask("runs") == [], "nothing is left")
    assert [run.read().state for run in (training, queued, paused)] == ["stopped"] * 3


def test_an_error_in_training_is_not_tried_again(runs: Runs) -> None:
    run = runs.create(env={"id": "tests.integration.ray_envs:BreakingEnv", "n_envs": 1, "backend": "sync"})
    runs.submit(run)
    assert runs.until_settled(run) == ["failed"]
    assert "the sensor is broken" in (run.read().reason or "")
    assert run.read().retries == 0


def test_a_run_cannot_be_submitted_twice(runs: Runs) -> None:
    run = runs.create(**ENDLESS)
    runs.submit(run, owner="first")
    runs.submit(run, owner="first")
    with pytest.raises(RunStateError, match="submitted by another process"):
        runs.submit(run, owner="second")
    runs.ask("kill", [str(run.path)], "the test is over")
    assert run.read().state == "stopped"
