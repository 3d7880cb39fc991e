"""Append-only JSON lines that can be cut back to where a checkpoint was taken."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlplatform.artifacts.atomic import storage_errors, sync_folder
from rlplatform.errors import StorageError


class JsonlWriter:
    """Appends records to one file, one line each; numbers that are not finite become null."""

    def __init__(self, path: Path) -> None:
        """Open the file at ``path`` for appending; it is made if missing.

        Raises:
            StorageError: If the file cannot be opened.
        """
        self.path = path
        with storage_errors(path):
            self._file = open(path, "ab")  # noqa: SIM115 - held open for the writer's life

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line; readers see it at once, the disk has it after `sync`.

        Raises:
            StorageError: If the disk is full.
        """
        line = json.dumps(_finite(record), allow_nan=False, separators=(",", ":"))
        with storage_errors(self.path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Force everything appended so far to the disk and return the file's size in bytes."""
        with storage_errors(self.path):
            os.fsync(self._file.fileno())
            sync_folder(self.path.parent)
        return self.size()

    def size(self) -> int:
        """Return the file's size in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def truncate(self, n_bytes: int) -> None:
        """Cut the file back to its first ``n_bytes`` bytes, as `truncate_file`."""
        truncate_file(self.path, n_bytes)

    def close(self) -> None:
        """Close the file; nothing can be appended any more."""
        with storage_errors(self.path):
            self._file.close()


def truncate_file(path: Path, n_bytes: int) -> None:
    """Cut the file at ``path`` back to its first ``n_bytes`` bytes, durably. A missing file counts as empty.

    Raises:
        StorageError: If the file is shorter than that.
    """
    with storage_errors(path), open(path, "ab") as file:
        size = file.tell()
        if size < n_bytes:
            raise StorageError(
                f"{path} has {size} bytes, but the checkpoint was taken when it had {n_bytes}: "
                "it was cut or replaced since. Restore it, or start a new run."
            )
        file.truncate(n_bytes)
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of the file at ``path``, oldest first; nothing if it is missing.

    A last line without its newline is passed over: it is being written, or was when its writer was killed.

    Raises:
        StorageError: If a whole line is not a JSON object.
    """
    if not path.exists():
        return
    with storage_errors(path), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise StorageError(f"{path}:{number} is not JSON ({error}). The file is damaged.") from error
            if not isinstance(record, dict):
                raise StorageError(f"{path}:{number} is not a JSON object. The file is damaged.")
            yield record


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):  # a NumPy or torch scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
