from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from rlplatform.artifacts.atomic import recover_dirs, recover_files, replace_dir, write_json, write_text
from rlplatform.errors import StorageError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_fsync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


def test_write_text_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "first")
    write_text(tmp_path / "a.txt", "zweite Fassung: ü")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "zweite Fassung: ü"
    assert names_in(tmp_path) == ["a.txt"]


def test_write_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"step": 3})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"step": 3}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left to write .*a.txt.*Free some space, or set RLPLATFORM_HOME"),
        (errno.EDQUOT, "No space left to write .*a.txt"),
        (errno.EACCES, "may not be read or written .*Change its owner or permissions"),
        (errno.EROFS, "may not be read or written .*Read-only file system"),
        (errno.EIO, "could not be read or written: Input/output error. Check the disk"),
    ],
)
def test_a_failed_write_says_why_in_words_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    write_text(tmp_path / "a.txt", "old")
    fail_fsync(monkeypatch, number)
    with pytest.raises(StorageError, match=words):
        write_text(tmp_path / "a.txt", "new")
    assert names_in(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_writing_below_a_file_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StorageError, match=r"home.* is not a folder|Not a directory"):
        write_text(tmp_path / "home" / "a.txt", "x")


def test_writing_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"does not exist"):
        write_text(tmp_path / "missing" / "a.txt", "x")


def test_replace_dir_swaps_whole_folders(tmp_path: Path) -> None:
    target = tmp_path / "best"
    for text in ("one", "two"):
        with replace_dir(target) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "model.zip").write_text(text)
            (folder / text).touch()
    assert (target / "inner" / "model.zip").read_text() == "two"
    assert names_in(target) == ["inner", "two"]
    assert names_in(tmp_path) == ["best"]


def test_replace_dir_keeps_the_old_folder_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "best"
    with replace_dir(target) as folder:
        (folder / "model.zip").write_text("old")
    with pytest.raises(KeyboardInterrupt), replace_dir(target) as folder:  # noqa: PT012
        (folder / "model.zip").write_text("half")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["best"]
    assert (target / "model.zip").read_text() == "old"


def test_replace_dir_reports_a_full_disk_in_the_block(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"No space left to write .*best"), replace_dir(tmp_path / "best"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == []


def test_replace_dir_reports_a_full_disk_behind_another_error(tmp_path: Path) -> None:
    def save() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("the zip file could not be finished")  # noqa: B904 - as libraries do

    with pytest.raises(StorageError, match=r"No space left to write .*best"), replace_dir(tmp_path / "best"):
        save()
    assert names_in(tmp_path) == []


def test_recover_dirs_brings_back_the_old_folder_when_killed_between_the_renames(tmp_path: Path) -> None:
    (tmp_path / ".best.old").mkdir()
    (tmp_path / ".best.old" / "model.zip").write_text("old")
    (tmp_path / ".best.12ab34cd.tmp").mkdir()
    recover_dirs(tmp_path, "best")
    assert names_in(tmp_path) == ["best"]
    assert (tmp_path / "best" / "model.zip").read_text() == "old"


def test_recover_dirs_drops_the_old_folder_when_the_new_one_has_its_name(tmp_path: Path) -> None:
    for name in (".best.old", "best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.zip").write_text(name)
    recover_dirs(tmp_path, "best")
    assert names_in(tmp_path) == ["best"]
    assert (tmp_path / "best" / "model.zip").read_text() == "best"


def test_recover_files_removes_what_writers_left_of_the_named_files(tmp_path: Path) -> None:
    for name in (".state.pkl.12ab34cd.tmp", ".search.json.12ab34cd.tmp", "state.pkl"):
        (tmp_path / name).touch()
    (tmp_path / ".best.12ab34cd.tmp").mkdir()
    recover_files(tmp_path, "state.pkl")
    assert names_in(tmp_path) == [".best.12ab34cd.tmp", ".search.json.12ab34cd.tmp", "state.pkl"]
    recover_files(tmp_path)
    assert names_in(tmp_path) == [".best.12ab34cd.tmp", "state.pkl"]


def test_recover_dirs_touches_neither_other_folders_nor_files_being_written(tmp_path: Path) -> None:
    (tmp_path / ".export.12ab34cd.tmp").mkdir()
    (tmp_path / ".run.json.12ab34cd.tmp").touch()
    recover_dirs(tmp_path, "best")
    recover_dirs(tmp_path / "missing")
    assert names_in(tmp_path) == [".export.12ab34cd.tmp", ".run.json.12ab34cd.tmp"]
