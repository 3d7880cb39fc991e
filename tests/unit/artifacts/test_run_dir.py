from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.atomic import write_text
from rlplatform.artifacts.locks import file_lock
from rlplatform.artifacts.provenance import package_versions
from rlplatform.artifacts.run_dir import RunDir, list_runs
from rlplatform.artifacts.run_record import RunProgress
from rlplatform.errors import RunNotFound, RunStateError, StorageError
from rlplatform.names import RECORD_LOCK_FILE
from rlplatform.specs.run import RunSpec

UPDATE_PROGRESS = """
import sys
from rlplatform.artifacts.run_dir import RunDir
from pathlib import Path
run = RunDir(Path(sys.argv[1]))
for _ in range(40):
    run.edit(lambda old: {"retries": old.retries + 1})
"""

TRAIN_AND_HANG = """
import sys, time
from pathlib import Path
from rlplatform.artifacts.run_dir import RunDir
run = RunDir(Path(sys.argv[1]))
with run.lock():
    run.begin_attempt(0)
    print("training", flush=True)
    time.sleep(60)
"""


def spec(**changes: Any) -> RunSpec:
    value = {"algorithm": {"name": "ppo"}, "env": {"id": "CartPole-v1"}, "budget": {"total_timesteps": 4096}, "seed": 5}
    return RunSpec.model_validate({**value, **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path, spec())


def test_a_new_run_has_its_spec_and_a_full_record(run: RunDir, tmp_path: Path) -> None:
    assert run.path.parent == tmp_path / "runs"
    assert re.fullmatch(r"cartpole-v1-ppo-s5-\d{8}-\d{6}-[0-9a-f]{4}", run.id)
    assert run.home == tmp_path
    assert run.spec() == spec()
    record = run.read()
    assert record.state == "created"
    assert (record.id, record.name, record.algorithm, record.env) == (run.id, "cartpole-v1-ppo", "ppo", "CartPole-v1")
    assert (record.seed, record.progress.total, record.retries, record.attempts) == (5, 4096, 0, ())
    assert record.spec_digest == spec().training_digest()
    assert (record.env_backend, record.env_state) == (spec().env.backend, spec().env.state)
    assert record.versions["pydantic"] == package_versions()["pydantic"]
    assert record.machine.pid == os.getpid()
    assert record.machine.cpu_count >= 1
    assert "pytest" in record.command
    assert record.created_at.tzinfo == UTC


def test_runs_of_one_spec_in_one_second_never_share_a_folder(tmp_path: Path) -> None:
    assert len({RunDir.create(tmp_path, spec()).path for _ in range(8)}) == 8


def test_a_namespaced_env_id_makes_one_folder(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, spec(env={"id": "ALE/Pong-v5"}))
    assert run.path.parent == tmp_path / "runs"
    assert run.id.startswith("ale-pong-v5-ppo-s5-")


def test_creating_where_nothing_can_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StorageError, match="home"):
        RunDir.create(tmp_path / "home", spec())


def test_a_run_is_found_by_id_by_beginning_and_by_path(run: RunDir, tmp_path: Path) -> None:
    assert RunDir.open(tmp_path, run.id) == run
    assert RunDir.open(tmp_path, run.id[:12]) == run
    assert RunDir.open(tmp_path, str(run.path)) == run
    assert RunDir.open(tmp_path / "elsewhere", run.path) == run


def test_an_unknown_run_gets_the_nearest_id(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match=f"no run .* Did you mean '{run.id}'"):
        RunDir.open(tmp_path, run.id.replace("cartpole", "cartpol"))
    with pytest.raises(RunNotFound, match=r"It holds none\. Train one, or set RLPLATFORM_HOME"):
        RunDir.open(tmp_path / "empty", "x")
    with pytest.raises(RunNotFound, match="There is no run ''"):
        RunDir.open(tmp_path, "")


def test_an_ambiguous_beginning_names_the_candidates(run: RunDir, tmp_path: Path) -> None:
    other = RunDir.create(tmp_path, spec(seed=6))
    with pytest.raises(RunNotFound, match=f"2 runs begin with 'cartpole': {run.id}, {other.id}. Give more"):
        RunDir.open(tmp_path, "cartpole")


def test_a_run_goes_through_its_states_and_remembers_every_attempt(run: RunDir) -> None:
    run.update(state="queued")
    assert run.begin_attempt(0).state == "running"
    run.update(progress=RunProgress(step=100, total=4096, episode_return=20.0, fps=1000.0))
    paused = run.end_attempt("paused", 128, "asked to pause")
    assert (paused.state, paused.reason, paused.ended_at) == ("paused", "asked to pause", None)
    run.begin_attempt(128)
    done = run.end_attempt("completed", 4096, "the budget is done", result={"step": 4096})
    assert (done.state, done.result) == ("completed", {"step": 4096})
    assert done.ended_at is not None
    assert [(a.start_step, a.end_step, a.reason) for a in done.attempts] == [
        (0, 128, "asked to pause"),
        (128, 4096, "the budget is done"),
    ]
    assert done.started_at == done.attempts[0].started_at
    assert run.read() == done


def test_an_attempt_that_was_killed_is_closed_by_the_next(run: RunDir) -> None:
    run.begin_attempt(0)
    record = run.begin_attempt(64)
    assert record.state == "running"
    assert [(a.ended_at, a.reason) for a in record.attempts] == [(None, "its process or machine died"), (None, None)]


def test_an_attempt_that_never_began_leaves_a_finished_run_as_it_was(run: RunDir) -> None:
    run.begin_attempt(0)
    before = run.end_attempt("completed", 4096, "done", result={"step": 4096})
    assert run.end_attempt("failed", 0, "no such package") == before


def test_an_attempt_that_never_began_fails_a_new_run(run: RunDir) -> None:
    record = run.end_attempt("failed", 0, "no such package")
    assert (record.state, record.reason, record.attempts) == ("failed", "no such package", ())


def test_a_forbidden_state_changes_nothing(run: RunDir) -> None:
    before = run.read()
    with pytest.raises(RunStateError, match=f"Run {run.id}: A run that is created cannot become completed"):
        run.update(state="completed", retries=3)
    assert run.read() == before


def test_an_unknown_field_is_refused(run: RunDir) -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        run.update(stat="running")


def test_an_amendment_is_recorded_and_becomes_the_spec(run: RunDir) -> None:
    longer = spec(budget={"total_timesteps": 8192})
    record = run.amend(longer, step=4096, changes={"budget.total_timesteps": (4096, 8192)}, note="a new horizon")
    (amendment,) = record.amendments
    assert (amendment.step, amendment.note, amendment.old_digest) == (4096, "a new horizon", spec().training_digest())
    assert amendment.changes == {"budget.total_timesteps": (4096, 8192)}
    assert (record.spec_digest, record.progress.total) == (longer.training_digest(), 8192)
    assert run.spec() == longer
    assert run.read() == record


def test_an_amendment_killed_in_the_middle_leaves_a_run_that_can_go_on_and_be_amended(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def killed_in_the_second(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt("killed")
        write_text(path, text)

    longer = spec(budget={"total_timesteps": 8192})
    monkeypatch.setattr("rlplatform.artifacts.run_dir.write_text", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        run.amend(longer, step=0, changes={})
    checkpoints_of = spec().training_digest()
    assert checkpoints_of in {run.spec().training_digest(), *(one.old_digest for one in run.read().amendments)}
    run.amend(longer, step=0, changes={})
    assert checkpoints_of in {amendment.old_digest for amendment in run.read().amendments}


def test_updates_of_several_processes_are_all_kept(run: RunDir) -> None:
    command = [sys.executable, "-c", UPDATE_PROGRESS, str(run.path)]
    with subprocess.Popen(command) as first, subprocess.Popen(command) as second:
        for step in range(20):
            run.update(progress=RunProgress(step=step, total=4096))
        assert first.wait() == second.wait() == 0
    record = run.read()
    assert (record.retries, record.progress.step) == (80, 19)


def test_not_a_number_is_stored_as_null(run: RunDir) -> None:
    run.update(progress=RunProgress(total=4096, episode_return=float("nan")), result={"loss": float("inf")})
    record = run.read()
    assert (record.progress.episode_return, record.result) == (None, {"loss": None})


@pytest.mark.parametrize("content", [b"", b'{"id": "x"', b"{}", b"\xff"])
def test_a_damaged_record_is_named(run: RunDir, content: bytes) -> None:
    run.run_path.write_bytes(content)
    with pytest.raises(StorageError, match=r"run\.json is damaged or of another version"):
        run.read()


def test_only_one_process_trains_a_run_and_the_other_learns_which(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlplatform.artifacts.run_dir._LOCK_PATIENCE_S", 0.05)
    assert not run.is_alive()
    with run.lock():
        assert run.is_alive()
        with (
            pytest.raises(RunStateError, match=f"is being trained by process {os.getpid()} on .*runs stop"),
            run.lock(),
        ):
            pass
    assert not run.is_alive()


def test_a_killed_run_is_recognised_and_can_be_taken_up(run: RunDir) -> None:
    command = [sys.executable, "-c", TRAIN_AND_HANG, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"training\n"
        assert run.is_alive()
        child.kill()
        child.wait()
    assert (run.read().state, run.is_alive()) == ("running", False)
    with run.lock():
        assert run.begin_attempt(0).state == "running"


def test_locking_clears_up_what_a_killed_process_left(run: RunDir) -> None:
    for name in (".best.old", ".best.0a1b2c3d.tmp", "checkpoints/.step_000000000100.0a1b2c3d.tmp"):
        (run.path / name).mkdir(parents=True)
    with run.lock():
        assert run.best_path.is_dir()
        assert list(run.checkpoints_path.iterdir()) == []
        assert not list(run.path.glob(".best.*"))


def test_locking_sweeps_the_files_of_killed_writers(run: RunDir) -> None:
    for name in ("run.json", "request.json", "spec.yaml"):
        (run.path / f".{name}.0a1b2c3d.tmp").write_text("hal", encoding="utf-8")
    with run.lock():
        assert not list(run.path.glob("*.tmp"))
        assert run.read().state == "created"


def test_locking_waits_for_whoever_writes_the_record(run: RunDir) -> None:
    written = run.path / ".run.json.0a1b2c3d.tmp"
    swept = threading.Event()

    def sweep() -> None:
        with run.lock():
            swept.set()

    sweeper = threading.Thread(target=sweep)
    with file_lock(run.path / RECORD_LOCK_FILE):
        written.touch()
        sweeper.start()
        assert not swept.wait(0.1)
        assert written.exists()
    sweeper.join()
    assert not written.exists()


def test_a_request_is_seen_until_it_is_cleared(run: RunDir) -> None:
    assert run.pending_request() is None
    run.request("pause")
    assert run.pending_request() == "pause"
    run.request("stop")
    assert RunDir(run.path).pending_request() == "stop"
    run.clear_request()
    run.clear_request()
    assert run.pending_request() is None


def test_all_runs_are_listed_newest_first_without_what_is_no_run(tmp_path: Path) -> None:
    runs = [RunDir.create(tmp_path, spec(seed=seed)) for seed in range(3)]
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / ".half.0a1b2c3d.tmp").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    assert [record.id for record in list_runs(tmp_path)] == [run.id for run in reversed(runs)]
    assert list_runs(tmp_path / "empty") == []


def test_the_record_is_readable_json_for_people_and_scripts(run: RunDir) -> None:
    value = json.loads(run.run_path.read_text())
    assert value["state"] == "created"
    assert set(value["machine"]) >= {"host", "cpu_count", "platform", "python", "torch"}
    assert value["format"] == 1
