"""Files and folders that are there whole or not at all, also after ``kill -9`` or a power cut.

Everything is written beside its place under a temporary name, forced to the disk, and renamed. An ``OSError`` leaves
this module as a `StorageError` that says which path, why, and what to do.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlplatform.errors import StorageError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}


def write_text(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` in UTF-8, atomically and durably.

    Raises:
        StorageError: If the folder is missing, not writable or full. The old file is then untouched.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at ``path`` by ``data``, atomically and durably.

    Raises:
        StorageError: As `write_text`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace the file at ``path`` by ``value`` as indented JSON, atomically and durably.

    Raises:
        StorageError: As `write_text`.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def replace_dir(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``target`` when the block ends well, else is removed.

    A kill at any moment leaves either the old folder, the new one, or what `recover_dirs` turns into one of them.

    Args:
        target: The folder to make or to replace. Its parents are made.

    Raises:
        StorageError: If the disk is full or not writable. The old folder is then untouched.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(target):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            sync_tree(temporary)
            _rename_over(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(target.parent)


def recover_dirs(parent: Path, pattern: str = "*") -> None:
    """Finish or undo what a killed `replace_dir` left in ``parent``.

    Only the one process that writes there may call this: it removes temporary folders that are being filled, too.

    Args:
        parent: The folder that holds the targets; it may be missing.
        pattern: Glob pattern of the targets' names.
    """
    with storage_errors(parent):
        for old in parent.glob(f".{pattern}.old"):
            target = old.with_name(old.name[1:].removesuffix(".old"))
            if target.exists():
                shutil.rmtree(old)
            else:
                os.rename(old, target)
        for temporary in parent.glob(f".{pattern}.*.tmp"):
            if temporary.is_dir():
                shutil.rmtree(temporary)


def recover_files(parent: Path, pattern: str = "*") -> None:
    """Remove the temporary files that killed writers left in ``parent``.

    Only who keeps every writer of those files out may call this: it cannot tell a dead writer's from a living one's.

    Args:
        parent: The folder that holds the files.
        pattern: Glob pattern of the files' names.
    """
    with storage_errors(parent):
        for temporary in parent.glob(f".{pattern}.*.tmp"):
            if temporary.is_file():
                temporary.unlink()


def remove_dir(folder: Path) -> None:
    """Remove a folder that vanishes at once; `recover_dirs` clears what a kill leaves of it."""
    dying = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(folder):
        os.rename(folder, dying)
        shutil.rmtree(dying)


def sync_folder(folder: Path) -> None:
    """Force the names in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force every file and folder below ``folder``, and itself, to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_folder(Path(parent, name))
        sync_folder(Path(parent))


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a `StorageError` about ``path``."""
    try:
        yield
    except ConnectionError:  # of a pipe or socket that the block uses, not of the disk
        raise
    except OSError as error:
        raise StorageError(_in_words(path, error)) from error
    except RuntimeError as error:
        # torch closes its zip file on the way out of a failed write, fails again, and hides the reason behind that.
        reason = error.__context__
        if isinstance(reason, OSError) and reason.errno in _NO_SPACE:
            raise StorageError(_in_words(path, reason)) from error
        raise


def _rename_over(source: Path, target: Path) -> None:
    # rename(2) replaces only an empty folder, so a full one steps aside first; `recover_dirs` knows its name.
    if not target.exists():
        os.rename(source, target)
        return
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(target, old)
    os.rename(source, target)
    shutil.rmtree(old, ignore_errors=True)


def _in_words(path: Path, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NO_SPACE:
        return f"No space left to write {path} ({reason}). Free some space, or set RLPLATFORM_HOME to another disk."
    if error.errno in _NO_PERMISSION:
        return (
            f"{error.filename or path} may not be read or written ({reason}). Change its owner or permissions, "
            "or set RLPLATFORM_HOME to a folder of yours."
        )
    if error.errno in _NOT_THERE:
        return f"{error.filename or path} does not exist, needed for {path} ({reason}). Check the path."
    return f"{path} could not be read or written: {reason}. Check the disk."
