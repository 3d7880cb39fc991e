"""The folder of one model version, which says by itself what it holds, should the database be lost.

<root>/<name>/versions/000002/version.json  when it was published, and the sha256 of every file:
/policy.onnx policy.json  [model.zip] [normalizer.npz] [spec.yaml]
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rlplatform.artifacts.atomic import storage_errors, write_text
from rlplatform.artifacts.checkpoint import FileRecord, hash_file
from rlplatform.errors import BundleError
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE, MODEL_FILE, NORMALIZER_FILE, SPEC_FILE
from rlplatform.policy.registry import ModelVersion
from rlplatform.policy.runtime import PolicyRuntime

VERSION_FILE = "version.json"
VERSIONS_DIR = "versions"
_BESIDE = (MODEL_FILE, NORMALIZER_FILE, SPEC_FILE)


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
        BundleError: What was copied is not whole, not safe to load, or cannot be run.
        StorageError: It cannot be copied.
    """
    with storage_errors(target):
        for file in (BUNDLE_ONNX_FILE, BUNDLE_JSON_FILE, *_BESIDE):
            if file not in _BESIDE or (folder / file).is_file():
                shutil.copyfile(folder / file, target / file)
    try:
        PolicyRuntime.load(target)  # What is kept is what was checked, also if the source changed in between.
    except BundleError as error:
        raise BundleError(str(error).replace(str(target), str(folder))) from error
    record = VersionRecord(
        published_at=datetime.now(UTC), files={file.name: hash_file(file) for file in sorted(target.iterdir())}
    )
    write_text(target / VERSION_FILE, record.model_dump_json(indent=2) + "\n")
    return record


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
