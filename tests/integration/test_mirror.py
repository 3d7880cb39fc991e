"""Runs in an object store: a local S3 server, two machines' homes, kills in the middle of an upload."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.mirror import Index, Mirror, open_run
from rlplatform.artifacts.remote import RemoteFolder
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import RunNotFound, RunStateError, SpecError, StorageError
from rlplatform.train.compare import Comparison, compare_runs
from rlplatform.train.progress import Progress
from rlplatform.train.trainer import Trainer
from tests.integration.s3_store import ACCESS_KEY, ENVIRONMENT, SECRET_KEY, Bucket, s3_server
from tests.unit.train.small_specs import small_spec

KILLED_PUSH = """
import os, signal, sys
from pathlib import Path
from rlplatform.artifacts import mirror
from rlplatform.artifacts.remote import RemoteFolder

folder, uri, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
mirror._THREADS = 1

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def send_half(self, path, n_bytes, name):
    target = self._store.open_output_stream(f"{self._path}/{name}")
    target.write(path.read_bytes()[: n_bytes // 2])
    die()

send = RemoteFolder.send

def send_some(self, *arguments):
    if send_some.left == 0:
        die()
    send_some.left -= 1
    send(self, *arguments)

send_some.left = 2
if moment == "in the middle of a file":
    RemoteFolder.send = send_half
elif moment == "between two files":
    RemoteFolder.send = send_some
else:
    RemoteFolder.write = die
mirror.Mirror(folder, RemoteFolder(uri)).push()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket of this test, to which runs are copied."""
    bucket = Bucket(server, f"bucket-{abs(hash(request.node.name))}")
    bucket.create()
    for name, value in {**ENVIRONMENT, "RLPLATFORM_REMOTE": bucket.uri}.items():
        monkeypatch.setenv(name, value)
    return bucket


class StopAt:
    """Stops a trainer at the first boundary at or after a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.trainer: Trainer

    def on_progress(self, progress: Progress) -> None:
        if progress.step >= self.step:
            self.trainer.request_stop()


def index(run: RunDir, bucket: Bucket) -> Index:
    """Return what the store holds of a run."""
    found = Mirror(run.path, RemoteFolder(bucket.uri)).index()
    assert found is not None
    return found


def advance(run: RunDir, step: int, text: str) -> None:
    """Write a checkpoint and a line of metrics, as a run does."""

    def fill(folder: Path, _: object) -> dict[str, object]:
        (folder / "model.zip").write_text(text * 1000, encoding="utf-8")
        return {}

    with open(run.metrics_path, "a", encoding="utf-8") as metrics:
        metrics.write(f"{step}\n")
    CheckpointStore(run.checkpoints_path, 2).write(
        number=step,
        step=step,
        kind="scheduled",
        spec_digest="d",
        metrics={},
        fill=fill,  # type: ignore[arg-type]
    )


@pytest.fixture
def run(tmp_path: Path, bucket: Bucket) -> RunDir:
    """A run with two checkpoints, both copied."""
    run = RunDir.create(tmp_path / "here", small_spec("ppo"))
    advance(run, 64, "a")
    advance(run, 128, "b")
    Mirror(run.path, RemoteFolder(bucket.uri)).push()
    return run


def test_a_run_goes_on_elsewhere_as_if_nothing_had_happened(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlplatform.train.trainer.PULSE_S", 0.0)
    listener = StopAt(100)
    trainer = listener.trainer = Trainer.create(small_spec("sac"), tmp_path / "lost", listener)
    assert trainer.fit().state == "stopped"
    shutil.rmtree(tmp_path / "lost")

    run = open_run(tmp_path / "elsewhere", trainer.run_dir.id[:-2])
    assert Trainer.open(run).fit().state == "completed"

    monkeypatch.delenv("RLPLATFORM_REMOTE")
    whole = Trainer.create(small_spec("sac"), tmp_path / "whole")
    whole.fit()
    assert compare_runs(run, whole.run_dir) == Comparison(True, True, "")
    copy = index(run, bucket)
    assert copy.step == 192
    assert {"run.json", "spec.yaml", "metrics.jsonl", "best/best.json"} <= copy.files.keys()
    assert not [name for name in copy.files if "/." in f"/{name}"]


def test_what_is_there_is_not_sent_again_and_what_is_pruned_is_removed(
    run: RunDir, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = RemoteFolder.send

    def counted(self: RemoteFolder, path: Path, n_bytes: int, name: str) -> None:
        sent.append(path.name)
        send(self, path, n_bytes, name)

    monkeypatch.setattr(RemoteFolder, "send", counted)
    mirror = Mirror(run.path, RemoteFolder(bucket.uri))
    mirror.push()
    assert sent == []
    advance(run, 192, "c")  # the third of two that are kept
    mirror.push()
    assert sorted(sent) == ["manifest.json", "metrics.jsonl", "model.zip"]
    copy = index(run, bucket)
    assert [name for name in copy.files if "step_000000000064" in name] == []
    objects = {key.rpartition("/")[2] for key in bucket.objects() if f"/{run.id}/" in key}
    assert objects == {record.sha256 for record in copy.files.values()}
    assert not list(run.path.glob(".mirror-*"))


@pytest.mark.parametrize("moment", ["in the middle of a file", "between two files", "before the index"])
def test_a_push_that_is_killed_leaves_the_copy_as_it_was(
    moment: str, run: RunDir, bucket: Bucket, tmp_path: Path
) -> None:
    before = index(run, bucket)
    advance(run, 192, "c")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_PUSH, str(run.path), bucket.uri, moment], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr

    assert index(run, bucket) == before
    elsewhere = open_run(tmp_path / "elsewhere", run.id)
    newest, damaged = CheckpointStore(elsewhere.checkpoints_path, 2).newest_good()
    assert (newest and newest.manifest.step, damaged) == (128, ())
    assert elsewhere.metrics_path.read_text(encoding="utf-8") == "64\n128\n"

    Mirror(run.path, RemoteFolder(bucket.uri)).push()  # the same machine, started again
    assert index(run, bucket).step == 192
    assert not list(run.path.glob(".mirror-*"))


def test_a_damaged_object_costs_its_checkpoint_alone(run: RunDir, bucket: Bucket, tmp_path: Path) -> None:
    record = index(run, bucket).files["checkpoints/step_000000000128/model.zip"]
    bucket.put(f"rlplatform/runs/{run.id}/{record.sha256}", b"rot")
    elsewhere = open_run(tmp_path / "elsewhere", run.id)
    newest, damaged = CheckpointStore(elsewhere.checkpoints_path, 2).newest_good()
    assert newest is not None
    assert newest.manifest.step == 64
    assert len(damaged) == 1


def test_the_machine_that_was_left_behind_takes_the_copy_of_the_one_that_went_on(
    run: RunDir, bucket: Bucket, tmp_path: Path
) -> None:
    elsewhere = open_run(tmp_path / "elsewhere", run.id)
    advance(elsewhere, 192, "elsewhere")
    Mirror(elsewhere.path, RemoteFolder(bucket.uri)).push()
    with pytest.raises(RunStateError, match=r"went on from .*, step 192 at .* is not copied over that"):
        Mirror(run.path, RemoteFolder(bucket.uri)).push()

    assert open_run(run.home, run.id) == run
    newest = CheckpointStore(run.checkpoints_path, 2).newest_good()[0]
    assert newest is not None
    assert newest.manifest.step == 192
    Mirror(run.path, RemoteFolder(bucket.uri)).push()  # and is the one that goes on from now
    with pytest.raises(RunStateError, match="went on from"):
        Mirror(elsewhere.path, RemoteFolder(bucket.uri)).push()


def test_a_machine_that_has_come_further_keeps_what_it_has(run: RunDir, bucket: Bucket, tmp_path: Path) -> None:
    elsewhere = open_run(tmp_path / "elsewhere", run.id)
    Mirror(elsewhere.path, RemoteFolder(bucket.uri)).push()
    advance(run, 192, "c")
    open_run(run.home, run.id)
    assert [checkpoint.manifest.step for checkpoint in CheckpointStore(run.checkpoints_path, 2).all()] == [128, 192]


def test_a_store_that_goes_away_does_not_stop_training_and_no_secret_is_logged(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("rlplatform"), "propagate", True)
    trainer = Trainer.create(small_spec("ppo"), tmp_path)

    def gone(*_: object) -> dict[str, int]:
        raise StorageError("s3://bucket/rlplatform cannot be reached.")

    class Gone:
        def on_progress(self, progress: Progress) -> None:
            monkeypatch.setattr(RemoteFolder, "objects_in", gone)

    trainer = Trainer.open(trainer.run_dir, Gone())
    with caplog.at_level(logging.DEBUG):
        assert trainer.fit().state == "completed"
    assert f"{trainer.run_dir.id} was not copied: s3://bucket/rlplatform cannot be reached." in caplog.text
    assert SECRET_KEY not in caplog.text
    assert ACCESS_KEY not in caplog.text


def test_a_store_that_cannot_be_used_is_refused_in_words_before_anything_is_trained(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPLATFORM_REMOTE", bucket.uri.replace(bucket.name, "another-bucket"))
    with pytest.raises(StorageError, match=r"^s3://another-bucket/rlplatform cannot be used: there is no such bucket"):
        Trainer.create(small_spec("ppo"), tmp_path).fit()
    with socket.socket() as listener:  # nobody answers here: its port is taken, but not listened to
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        monkeypatch.setenv("RLPLATFORM_REMOTE", f"s3://b/x?endpoint_override=http://127.0.0.1:{port}&region=us-east-1")
        with pytest.raises(StorageError, match=r"^s3://b/x cannot be reached\. Check the network"):
            Trainer.create(small_spec("ppo"), tmp_path).fit()


def test_a_run_that_is_nowhere_is_named_with_both_places(tmp_path: Path, run: RunDir) -> None:
    with pytest.raises(RunNotFound, match=r"There is no run 'nowhere'.* In s3://bucket-\d+/rlplatform: nor is it\."):
        open_run(tmp_path / "empty", "nowhere")


def test_an_index_that_points_out_of_its_folder_is_refused(run: RunDir, bucket: Bucket, tmp_path: Path) -> None:
    copy = index(run, bucket)
    record = next(iter(copy.files.values()))
    evil = copy.model_copy(update={"files": {"../../evil": record}})
    bucket.put(f"rlplatform/runs/{run.id}.json", evil.model_dump_json().encode())
    with pytest.raises(StorageError, match=r"names the file '\.\./\.\./evil', outside of its folder"):
        open_run(tmp_path / "elsewhere", run.id)
    assert not (tmp_path / "evil").exists()


def test_an_unknown_option_of_the_address_is_refused(bucket: Bucket) -> None:
    with pytest.raises(SpecError, match=r"^s3://b/x is no address of an object store: .*endpoint_overide"):
        RemoteFolder("s3://b/x?endpoint_overide=http://127.0.0.1:9")
