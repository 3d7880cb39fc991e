"""File locks that the kernel lets go of when their holder dies, also by ``kill -9``."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlplatform.artifacts.atomic import storage_errors

_POLL_S = 0.02
_held: set[int] = set()


@contextmanager
def file_lock(path: Path, *, patience_s: float | None = None, note: str = "") -> Iterator[bool]:
    """Hold an exclusive lock on ``path`` during the block; yields whether it could be had.

    Args:
        path: The lock file, made if missing and never removed: removing it would let two processes lock two files.
        patience_s: Seconds to wait for another holder. None: as long as it takes.
        note: What to write into the file for `lock_note` to read.
    """
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        got = _acquire(descriptor, patience_s)
        if got and note:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)
        yield got
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether some process, this one included, holds the lock on ``path``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_note(path: Path) -> str:
    """Return what the last holder of the lock wrote into it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _acquire(descriptor: int, patience_s: float | None) -> bool:
    if patience_s is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)


def _forget_in_child() -> None:
    # A forked child shares its parent's lock and would keep it after the parent's death: a dead run would seem alive.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_in_child)
