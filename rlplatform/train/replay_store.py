"""Replay buffers on disk: row chunks that are written once and shared by the checkpoints in which they did not change.

    replay/index.json                what is here, and the hash of each chunk
    replay/observations.00000.npy    rows 0 to 8,191 of one array
    replay/next_observations.goal.00001.npy

A ring buffer changes only where it was written since the donor checkpoint; every other chunk is hard-linked from there.
Rows go from memory to disk and back without a second copy of the buffer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from stable_baselines3.common.buffers import ReplayBuffer

from rlplatform.artifacts.atomic import write_text
from rlplatform.artifacts.checkpoint import FileRecord, hash_file
from rlplatform.errors import CheckpointError

CHUNK_ROWS = 8_192
CHUNK_BYTES = 16 * 1024 * 1024
INDEX_FILE = "index.json"

_RING_ARRAYS = frozenset({"observations", "next_observations", "actions", "rewards", "dones", "timeouts"})
"""Arrays that `ReplayBuffer.add` writes at the ring's position only. Others are written whole each time."""


class _Array(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    row_shape: tuple[int, ...]
    """Shape without the first dimension."""
    chunk_rows: int
    ring: bool


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    buffer_size: int
    pos: int
    full: bool
    rows: int
    """Rows saved: those ever written."""
    rows_added: int
    arrays: dict[str, _Array]
    files: dict[str, FileRecord]


class _Chunk(NamedTuple):
    file: str
    start: int
    stop: int


def save_buffer(buffer: ReplayBuffer, folder: Path, *, rows_added: int, donor: Path | None) -> Mapping[str, FileRecord]:
    """Write the filled rows of ``buffer`` into the new folder ``folder``.

    Args:
        buffer: The buffer; a row holds one transition of each environment.
        folder: A folder inside the new checkpoint's folder.
        rows_added: Rows ever added to the buffer, a count that only grows.
        donor: An older checkpoint of the same run, with a folder of the same name. What cannot be linked is copied.

    Returns:
        The record of each file, by its path in the checkpoint.

    Raises:
        CheckpointError: If the buffer holds Python objects, which only pickle could store.
    """
    folder.mkdir()
    rows = _used_rows(buffer)
    source = _usable_donor(buffer, donor / folder.name, rows_added) if donor is not None else None
    changed = None if source is None else _changed_rows(buffer, rows_added - source.rows_added)
    arrays: dict[str, _Array] = {}
    files: dict[str, FileRecord] = {}
    for name, array in _arrays(buffer):
        arrays[name] = _describe(name, array)
        for chunk in _chunks(name, arrays[name], rows):
            known = None
            if source is not None and changed is not None and arrays[name].ring and not _overlap(chunk, changed):
                known = source.files.get(chunk.file)
            if known is not None and donor is not None:
                files[chunk.file] = _link(donor / folder.name / chunk.file, folder / chunk.file, known)
            else:
                files[chunk.file] = _write_rows(folder / chunk.file, array[chunk.start : chunk.stop])
    index = _Index(
        buffer_size=buffer.buffer_size,
        pos=buffer.pos,
        full=buffer.full,
        rows=rows,
        rows_added=rows_added,
        arrays=arrays,
        files=files,
    )
    write_text(folder / INDEX_FILE, index.model_dump_json() + "\n")
    files[INDEX_FILE] = hash_file(folder / INDEX_FILE)
    return {f"{folder.name}/{name}": record for name, record in files.items()}


def load_buffer(buffer: ReplayBuffer, folder: Path) -> None:
    """Fill ``buffer`` with the rows in ``folder``; rows never written stay as they are.

    Args:
        buffer: A buffer made with the same options as the saved one.
        folder: What `save_buffer` wrote, its hashes verified.

    Raises:
        CheckpointError: If the buffer's size, arrays, shapes or dtypes differ from the saved, or a file is unreadable.
    """
    index = _read_index(folder)
    if index is None:
        raise CheckpointError(f"{folder / INDEX_FILE} is missing or damaged. Resume from an older checkpoint.")
    found = dict(_arrays(buffer))
    described = {name: _describe(name, array) for name, array in found.items()}
    if (
        index.buffer_size != buffer.buffer_size
        or index.arrays.keys() != described.keys()
        or any(
            (old.dtype, old.row_shape) != (described[name].dtype, described[name].row_shape)
            for name, old in index.arrays.items()
        )
    ):
        raise CheckpointError(
            f"The replay buffer in {folder} does not fit: it has {index.buffer_size} rows of {_summary(index.arrays)}, "
            f"this run's has {buffer.buffer_size} rows of {_summary(described)}. Resume with the spec of then."
        )
    for name, array in found.items():
        for chunk in _chunks(name, index.arrays[name], index.rows):
            _read_rows(folder / chunk.file, array[chunk.start : chunk.stop])
    buffer.pos, buffer.full = index.pos, index.full


def _arrays(buffer: ReplayBuffer) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every per-row array of a buffer with its name, and those in dictionaries as ``<attribute>.<key>``."""
    for name, value in sorted(vars(buffer).items()):
        members = value.items() if isinstance(value, dict) else [(None, value)]
        for key, array in members:
            if isinstance(array, np.ndarray) and array.ndim and len(array) == buffer.buffer_size:
                if array.dtype.hasobject:
                    raise CheckpointError(
                        f"`{name}` of {type(buffer).__name__} holds Python objects, which are not saved. "
                        "Use a replay buffer of plain arrays."
                    )
                yield name if key is None else f"{name}.{quote(key, safe='')}", array


def _describe(name: str, array: NDArray[Any]) -> _Array:
    row_bytes = max(1, array[:1].nbytes)
    return _Array(
        dtype=array.dtype.str,
        row_shape=array.shape[1:],
        ring=name.split(".")[0] in _RING_ARRAYS,
        chunk_rows=min(CHUNK_ROWS, max(1, CHUNK_BYTES // row_bytes)),
    )


def _chunks(name: str, array: _Array, rows: int) -> Iterator[_Chunk]:
    for number, start in enumerate(range(0, rows, array.chunk_rows)):
        yield _Chunk(f"{name}.{number:05d}.npy", start, min(start + array.chunk_rows, rows))


def _used_rows(buffer: ReplayBuffer) -> int:
    # With optimize_memory_usage the next observation lies in the row at `pos`, one past the last transition.
    return min(buffer.buffer_size, buffer.size() + _rows_ahead(buffer))


def _rows_ahead(buffer: ReplayBuffer) -> int:
    return 1 if buffer.optimize_memory_usage else 0


def _changed_rows(buffer: ReplayBuffer, added: int) -> list[tuple[int, int]]:
    """Return the ranges of rows that the last ``added`` transitions wrote."""
    size, written = buffer.buffer_size, added + _rows_ahead(buffer)
    if written >= size:
        return [(0, size)]
    stop = buffer.pos + _rows_ahead(buffer)
    start = stop - written
    return [(start, stop)] if start >= 0 and stop <= size else [(start % size, size), (0, stop % size)]


def _overlap(chunk: _Chunk, changed: list[tuple[int, int]]) -> bool:
    return any(chunk.start < stop and start < chunk.stop for start, stop in changed)


def _usable_donor(buffer: ReplayBuffer, folder: Path, rows_added: int) -> _Index | None:
    """Return the donor's index if ``rows_added`` later the ring stands exactly where it stands now."""
    index = _read_index(folder)
    if index is None or index.buffer_size != buffer.buffer_size:
        return None
    added = rows_added - index.rows_added
    same_ring = added >= 0 and (index.pos + added) % buffer.buffer_size == buffer.pos
    same_arrays = index.arrays == {name: _describe(name, array) for name, array in _arrays(buffer)}
    return index if same_ring and same_arrays else None


def _read_index(folder: Path) -> _Index | None:
    try:
        return _Index.model_validate_json((folder / INDEX_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _link(source: Path, target: Path, record: FileRecord) -> FileRecord:
    try:
        os.link(source, target)
    except OSError:  # another file system, one without links, or too many of them
        shutil.copyfile(source, target)
    return record


def _write_rows(path: Path, rows: NDArray[Any]) -> FileRecord:
    """Write a slice as a .npy file, hashing it on its way."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
        header_bytes = file.tell()
        file.flush()
        digest.update(path.read_bytes())
        data = rows.data.cast("B")
        file.write(data)
        digest.update(data)
    return FileRecord(sha256=digest.hexdigest(), bytes=header_bytes + rows.nbytes)


def _read_rows(path: Path, rows: NDArray[Any]) -> None:
    """Read a .npy file straight into a slice of the buffer's memory."""
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if shape != rows.shape or fortran or dtype != rows.dtype:
                raise CheckpointError(
                    f"{path} has {shape} of {dtype} where {rows.shape} of {rows.dtype} belongs. "
                    "Resume from an older checkpoint."
                )
            if file.readinto(rows.data.cast("B")) != rows.nbytes:
                raise CheckpointError(f"{path} ends early. Resume from an older checkpoint.")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Resume from an older checkpoint.") from error


def _summary(arrays: Mapping[str, _Array]) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.row_shape)}" for name, array in arrays.items())
