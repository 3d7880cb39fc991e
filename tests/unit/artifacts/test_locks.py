from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlplatform.artifacts.locks import file_lock, is_locked, lock_note
from rlplatform.errors import StorageError

HOLD = """
import sys, time
from pathlib import Path
from rlplatform.artifacts.locks import file_lock
with file_lock(Path(sys.argv[1]), note="the child"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_every_other_holder_also_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with file_lock(path, note="first") as got:
        assert got
        assert is_locked(path)
        assert lock_note(path) == "first"
        with file_lock(path, patience_s=0.05, note="second") as again:
            assert not again
        assert lock_note(path) == "first"
    assert not is_locked(path)


def test_a_patient_lock_waits_for_its_turn(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def hold() -> None:
        with file_lock(tmp_path / "lock"):
            entered.set()
            order.append("first")
            finish.wait(5)
            order.append("first leaves")

    finish = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(5)
    threading.Timer(0.05, finish.set).start()
    with file_lock(tmp_path / "lock") as got:
        order.append("second")
    thread.join()
    assert got
    assert order == ["first", "first leaves", "second"]


def test_looking_at_a_lock_does_not_take_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock(path):
        pass
    assert not is_locked(path)
    with file_lock(path, patience_s=0) as got:
        assert got


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert is_locked(path)
        child.kill()
        child.wait()
        assert not is_locked(path)
    assert lock_note(path) == "the child"


def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    with file_lock(path):
        child = os.fork()
        if child == 0:
            os.close(to_child)
            os.write(to_parent, b"1")
            os.read(from_parent, 1)  # until the parent closes its end
            os._exit(0)
        os.read(from_child, 1)
        assert is_locked(path)
    try:
        assert not is_locked(path)
    finally:
        os.close(to_child)
        os.waitpid(child, 0)
        for descriptor in (from_child, to_parent, from_parent):
            os.close(descriptor)


def test_a_lock_in_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"), file_lock(tmp_path / "missing" / "lock"):
        pass
