"""Bundles as zip files: checked by their structure before anything of them is written, and made for download."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from rlplatform.errors import SpecError
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE, SPEC_FILE
from rlplatform.policy.bundle import MAX_JSON_BYTES

BUNDLE_FILES = (BUNDLE_ONNX_FILE, BUNDLE_JSON_FILE, SPEC_FILE)
_PICKLED = (".pkl", ".pickle", ".pth", ".pt", ".joblib", ".npz", ".npy", ".zip", "data")
_PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_HINT = f"Send a zip of {BUNDLE_ONNX_FILE} and {BUNDLE_JSON_FILE}, as GET …/artifacts/model gives it."


def unpack_bundle(archive: Path, folder: Path, max_bytes: int) -> None:
    """Unpack an uploaded bundle into an empty folder; nothing is written outside it, or beyond `max_bytes`.

    Raises:
        SpecError: It is no zip, holds anything but a bundle's files, or more than allowed.
    """
    with archive.open("rb") as file:
        if file.read(2) in _PICKLE_STARTS:
            raise SpecError(f"This is a pickle. Loading one runs whatever code it holds, so none is taken. {_HINT}")
    try:
        with zipfile.ZipFile(archive) as zipped:
            entries = zipped.infolist()
            _check_entries(entries, max_bytes)
            for entry in entries:
                limit = max_bytes if entry.filename == BUNDLE_ONNX_FILE else min(max_bytes, MAX_JSON_BYTES)
                _extract(zipped, entry, folder / entry.filename, limit)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise SpecError(f"This is not a zip that can be read: {error}. {_HINT}") from error


def pack_bundle(folder: Path, archive: Path) -> None:
    """Write a bundle's files, and not what holds pickles beside them, into a zip."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in BUNDLE_FILES:
            if (folder / name).is_file():
                zipped.write(folder / name, name)


def pack_folder(folder: Path, archive: Path) -> None:
    """Write the files of a folder into a zip."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                zipped.write(path, path.relative_to(folder))


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if pickled := next((name for name in names if name.endswith(_PICKLED)), None):
        raise SpecError(f"{pickled[:100]!r} may hold pickles, and loading one runs whatever code it holds. {_HINT}")
    if unknown := next((name for name in names if name not in BUNDLE_FILES), None):
        raise SpecError(f"A bundle holds {', '.join(BUNDLE_FILES)} and nothing else, got {unknown[:100]!r}. {_HINT}")
    if len(set(names)) < len(names) or not {BUNDLE_ONNX_FILE, BUNDLE_JSON_FILE} <= set(names):
        raise SpecError(f"A bundle holds {BUNDLE_ONNX_FILE} and {BUNDLE_JSON_FILE} once each, got {names}. {_HINT}")
    for entry in entries:
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG} or entry.flag_bits & 1:
            raise SpecError(f"{entry.filename!r} must be a plain file, neither a link nor encrypted. {_HINT}")
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise SpecError(f"A bundle may have at most {max_bytes:,} bytes unpacked. Publish a smaller policy.")


def _extract(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limit: int) -> None:
    # A zip may unpack to more than its directory says.
    with zipped.open(entry) as source, target.open("wb") as file:
        left = limit + 1
        while left > 0 and (chunk := source.read(min(left, 2**20))):
            file.write(chunk)
            left -= len(chunk)
    if left <= 0:
        raise SpecError(f"{entry.filename!r} may have at most {limit:,} bytes unpacked. Publish a smaller policy.")
