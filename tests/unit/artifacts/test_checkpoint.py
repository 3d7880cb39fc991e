from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from rlplatform.artifacts.atomic import recover_dirs
from rlplatform.artifacts.checkpoint import Checkpoint, CheckpointStore, FileRecord, Kind, hash_file
from rlplatform.errors import CheckpointDamaged, StorageError
from rlplatform.names import MANIFEST_FILE

FILES = ("model.zip", "session.pkl", "normalizer.npz", "replay/index.json", "replay/rewards.00000.npy")
DIGEST = "d" * 64

WRITE_AND_HANG = """
import sys, time
from pathlib import Path
from rlplatform.artifacts.checkpoint import CheckpointStore

def fill(folder, donor):
    (folder / "model.zip").write_text("half")
    print("filling", flush=True)
    time.sleep(60)

store = CheckpointStore(Path(sys.argv[1]), keep_last=3)
store.write(number=2, step=200, kind="scheduled", spec_digest="d" * 64, metrics={}, fill=fill)
"""


def fill(folder: Path, donor: Checkpoint | None) -> Mapping[str, FileRecord]:
    (folder / "replay").mkdir()
    for name in FILES:
        (folder / name).write_bytes(name.encode() * 100)
    return {}


def write(store: CheckpointStore, number: int, kind: Kind = "scheduled") -> Checkpoint:
    return store.write(
        number=number, step=100 * number, kind=kind, spec_digest=DIGEST, metrics={"eval/return_mean": 1.5}, fill=fill
    )


def steps_in(root: Path) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in sorted(root.iterdir())]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_is_found_again_with_everything_in_its_manifest(tmp_path: Path) -> None:
    written = write(CheckpointStore(tmp_path, keep_last=3), 7)
    found, damaged = CheckpointStore(tmp_path, keep_last=3).newest_good()
    assert found == written
    assert damaged == ()
    assert found.path == tmp_path / "step_000000000700"
    manifest = found.manifest
    assert (manifest.number, manifest.step, manifest.kind, manifest.spec_digest) == (7, 700, "scheduled", DIGEST)
    assert manifest.metrics == {"eval/return_mean": 1.5}
    assert sorted(manifest.files) == sorted(FILES)
    assert manifest.files["model.zip"] == hash_file(found.path / "model.zip")


def test_a_metric_that_is_not_a_number_does_not_spoil_the_manifest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    metrics = {"train/loss": float("nan"), "train/std": float("inf"), "time/fps": 3.0}
    written = store.write(number=1, step=1, kind="scheduled", spec_digest=DIGEST, metrics=metrics, fill=fill)
    assert store.newest_good() == (written, ())
    assert written.manifest.metrics == {"time/fps": 3.0}


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=3)
    assert store.newest_good() == (None, ())
    assert store.all() == ()


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep_last: int) -> None:
    store = CheckpointStore(tmp_path, keep_last=keep_last)
    for number in range(1, 6):
        write(store, number)
    assert steps_in(tmp_path) == [500, 400, 300][:keep_last][::-1]
    assert [checkpoint.manifest.number for checkpoint in store.all()] == [5, 4, 3][:keep_last][::-1]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    write(store, 1)
    write(store, 1, "final")
    assert [checkpoint.manifest.kind for checkpoint in store.all()] == ["final"]
    assert steps_in(tmp_path) == [100]


def test_the_donor_is_the_second_newest_so_that_neighbours_share_no_file(tmp_path: Path) -> None:
    donors: list[int | None] = []

    def linking(folder: Path, donor: Checkpoint | None) -> Mapping[str, FileRecord]:
        donors.append(donor.manifest.number if donor else None)
        if donor is None:
            (folder / "chunk.npy").write_bytes(b"rows")
            return {}
        os.link(donor.path / "chunk.npy", folder / "chunk.npy")
        return {"chunk.npy": donor.manifest.files["chunk.npy"]}

    store = CheckpointStore(tmp_path, keep_last=4)
    for number in range(1, 7):
        store.write(number=number, step=number, kind="scheduled", spec_digest=DIGEST, metrics={}, fill=linking)
    assert donors == [None, None, 1, 2, 3, 4]
    inodes = [(checkpoint.path / "chunk.npy").stat().st_ino for checkpoint in store.all()]
    assert all(left != right for left, right in itertools.pairwise(inodes))
    flip_a_byte(store.all()[-1].path / "chunk.npy")
    found, damaged = store.newest_good()
    assert found is not None
    assert found.manifest.number == 5
    assert len(damaged) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    write(store, 1)
    flip_a_byte(write(store, 2).path / name)
    found, damaged = store.newest_good()
    assert found is not None
    assert found.manifest.number == 1
    assert len(damaged) == 1
    assert f"step_000000000200 is damaged: {name} has another sha256" in damaged[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "model.zip cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "model.zip has 899 bytes, the manifest says 900"),
        (lambda path: path.write_bytes(b""), "model.zip has 0 bytes"),
    ],
)
def test_a_missing_or_cut_file_is_named(tmp_path: Path, change: object, words: str) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    checkpoint = write(store, 1)
    assert callable(change)
    change(checkpoint.path / "model.zip")
    with pytest.raises(CheckpointDamaged, match=words):
        store.verify(checkpoint)
    assert store.newest_good()[0] is None


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "numb', b"[]", b"\xff\xfe", b'{"format": 2}', None])
def test_a_damaged_manifest_is_named_and_the_checkpoint_before_is_used(tmp_path: Path, content: bytes | None) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    write(store, 1)
    manifest = write(store, 2).path / MANIFEST_FILE
    if content is None:
        manifest.unlink()
    else:
        manifest.write_bytes(content)
    found, damaged = store.newest_good()
    assert found is not None
    assert found.manifest.number == 1
    assert f"step_000000000200 is damaged: {MANIFEST_FILE} " in damaged[0]
    assert [checkpoint.manifest.number for checkpoint in store.all()] == [1]


def test_every_single_flipped_bit_of_a_manifest_is_noticed_or_harmless(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    checkpoint = write(store, 1)
    path = checkpoint.path / MANIFEST_FILE
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        found, damaged = store.newest_good()
        assert found is None or not damaged
        if found is not None:
            assert found.manifest.files == checkpoint.manifest.files


def test_when_all_are_damaged_all_are_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    for number in (1, 2, 3):
        flip_a_byte(write(store, number).path / "session.pkl")
    found, damaged = store.newest_good()
    assert found is None
    assert [f"step_{step:012d}" in words for step, words in zip((300, 200, 100), damaged, strict=True)] == [True] * 3


def test_writing_removes_the_newer_ones_of_an_abandoned_future(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=4)
    for number in (1, 2, 4):
        write(store, number)
    flip_a_byte(tmp_path / "step_000000000400" / "model.zip")
    donors = []

    def note_donor(folder: Path, donor: Checkpoint | None) -> Mapping[str, FileRecord]:
        donors.append(donor.manifest.number if donor else None)
        return fill(folder, donor)

    store.write(number=3, step=300, kind="scheduled", spec_digest=DIGEST, metrics={}, fill=note_donor)
    assert donors == [1]
    assert steps_in(tmp_path) == [100, 200, 300]


def test_a_full_disk_leaves_the_checkpoints_that_were_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    write(store, 1)

    def full(folder: Path, donor: Checkpoint | None) -> Mapping[str, FileRecord]:
        fill(folder, donor)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"No space left to write .*step_000000000200"):
        store.write(number=2, step=200, kind="scheduled", spec_digest=DIGEST, metrics={}, fill=full)
    assert steps_in(tmp_path) == [100]
    assert store.newest_good()[0] is not None


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where a folder belongs")
    with pytest.raises(StorageError, match="checkpoints"):
        write(CheckpointStore(tmp_path / "checkpoints", keep_last=1), 1)


def test_a_writer_killed_while_it_fills_leaves_the_previous_checkpoint_and_no_rubbish(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    write(store, 1)
    with subprocess.Popen([sys.executable, "-c", WRITE_AND_HANG, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"filling\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(list(tmp_path.iterdir())) == 2
    found, damaged = store.newest_good()
    assert found is not None
    assert (found.manifest.number, damaged) == (1, ())
    write(store, 2)
    assert steps_in(tmp_path) == [100, 200]


def test_a_writer_killed_between_its_two_renames_loses_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    checkpoint = write(store, 1)
    os.rename(checkpoint.path, tmp_path / ".step_000000000100.old")
    recover_dirs(tmp_path)
    assert store.newest_good() == (checkpoint, ())


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    manifest = json.loads((write(CheckpointStore(tmp_path, keep_last=1), 1).path / MANIFEST_FILE).read_text())
    assert manifest["format"] == 1
    assert manifest["files"]["model.zip"]["bytes"] == 900


def test_metrics_that_are_no_numbers_do_not_make_a_checkpoint_unreadable(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    metrics = {"train/explained_variance": float("nan"), "train/loss": float("inf"), "train/n_updates": 1.0}
    store.write(number=1, step=1, kind="final", spec_digest=DIGEST, metrics=metrics, fill=fill)
    found, _ = CheckpointStore(tmp_path, keep_last=1).newest_good()
    assert found is not None
    assert found.manifest.metrics == {"train/n_updates": 1.0}


def test_a_checkpoint_found_damaged_is_no_donor_and_goes_with_the_next_write(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    for number in (1, 2, 3):
        write(store, number)
    flip_a_byte(tmp_path / "step_000000000300" / "replay/rewards.00000.npy")
    store.newest_good()
    assert [checkpoint.manifest.number for checkpoint in store.all()] == [1, 2]
    donors = []

    def note_donor(folder: Path, donor: Checkpoint | None) -> Mapping[str, FileRecord]:
        donors.append(donor.manifest.number if donor else None)
        return fill(folder, donor)

    store.write(number=4, step=400, kind="scheduled", spec_digest=DIGEST, metrics={}, fill=note_donor)
    assert donors == [1]
    assert steps_in(tmp_path) == [100, 200, 400]
