"""The folder of one model version, as every registry lays it.

<root>/<name>/versions/000002/version.json  when it was published, and the sha256 of every file:
/policy.onnx policy.json  [model.zip] [normalizer.npz] [spec.yaml]
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlplatform.artifacts.atomic import storage_errors, write_text
from rlplatform.artifacts.checkpoint import FileRecord, hash_file
from rlplatform.errors import BundleError, RegistryError
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE, MODEL_FILE, NORMALIZER_FILE, SPEC_FILE
from rlplatform.policy.bundle import load_bundle
from rlplatform.policy.registry import ModelVersion

VERSION_FILE = "version.json"
VERSIONS_DIR = "versions"
_BESIDE = (MODEL_FILE, NORMALIZER_FILE, SPEC_FILE)

_Record = TypeVar("_Record", bound=BaseModel)


class VersionRecord(BaseModel):
    """`version.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    published_at: datetime
    files: dict[str, FileRecord]


def version_path(root: Path, name: str, number: int) -> Path:
    """Return the folder of a version in the registry at `root`."""
    return root / name / VERSIONS_DIR / f"{number:06d}"


def version_numbers(root: Path, name: str) -> list[int]:
    """Return the numbers of the version folders that a model has, in ascending order."""
    folder = root / name / VERSIONS_DIR
    with storage_errors(folder):
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def fill_version(folder: Path, target: Path) -> VersionRecord:
    """Copy a bundle, and what stands beside it, into the folder of a version, and return its record.

    Args:
        folder: Holds the bundle. What else there is, is left out.
        target: An empty folder.

    Raises:
        BundleError: What was copied is not whole, or not safe to load.
        StorageError: It cannot be copied.
    """
    with storage_errors(target):
        for file in (BUNDLE_ONNX_FILE, BUNDLE_JSON_FILE, *_BESIDE):
            if file not in _BESIDE or (folder / file).is_file():
                shutil.copyfile(folder / file, target / file)
    load_bundle(target)  # What is kept is what was checked, also if the source changed in between.
    record = VersionRecord(
        published_at=datetime.now(UTC), files={file.name: hash_file(file) for file in sorted(target.iterdir())}
    )
    write_text(target / VERSION_FILE, record.model_dump_json(indent=2) + "\n")
    return record


def read_version(path: Path) -> VersionRecord:
    """Return the record of the version in a folder.

    Raises:
        RegistryError: It is damaged.
    """
    return read_record(path / VERSION_FILE, VersionRecord)


def read_record(path: Path, kind: type[_Record]) -> _Record:
    """Return what a file of a registry says.

    Raises:
        RegistryError: It is damaged.
        StorageError: It cannot be read.
    """
    try:
        with storage_errors(path):
            return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RegistryError(f"{path} is damaged: {error.errors()[0]['msg']}. Restore it from a copy.") from error


def verify_files(version: ModelVersion, files: Mapping[str, FileRecord]) -> None:
    """Compare every file of a version with its record.

    Raises:
        BundleError: A file is missing, or has changed.
    """
    for name, record in files.items():
        path = version.bundle_path / name
        if not path.is_file() or hash_file(path) != record:
            what = "has changed since it was published" if path.is_file() else "is missing"
            raise BundleError(f"{path} of {version.reference} {what}. Delete the version and publish it again.")


def remove_folder(folder: Path) -> None:
    """Remove a folder that vanishes at once; `recover_dirs` clears what a kill leaves of it."""
    dying = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(folder):
        os.rename(folder, dying)
        shutil.rmtree(dying)
