"""Checkpoints: folders that hold everything a run needs to go on, each with a manifest of hashes.

    checkpoints/step_000000012288/{manifest.json, model.zip, …}

The manifest is written last inside a temporary folder, which then takes its name in one rename: a folder that has its
name is whole. What rots afterwards is found by `CheckpointStore.verify`, and the checkpoint before it is used.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlplatform.artifacts.atomic import recover_dirs, replace_dir, storage_errors, write_text
from rlplatform.errors import CheckpointDamaged
from rlplatform.logs import get_logger
from rlplatform.names import MANIFEST_FILE

FORMAT: Literal[1] = 1
Kind = Literal["scheduled", "stop", "final"]

_log = get_logger(__name__)


class FileRecord(BaseModel):
    """What one file of a checkpoint must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """What a checkpoint holds, and of what moment of which run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    number: Annotated[int, Field(ge=0)]
    """Counts the checkpoints of the run."""
    step: Annotated[int, Field(ge=0)]
    """Environment steps trained so far."""
    kind: Kind
    created_at: datetime
    spec_digest: str
    """`RunSpec.training_digest` of the run at that moment."""
    metrics: dict[str, float]
    files: dict[str, FileRecord]
    """By path inside the folder, with forward slashes; all but the manifest itself."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; that its files are what the manifest says is for `CheckpointStore.verify` to find out."""

    path: Path
    manifest: Manifest


Fill = Callable[[Path, Checkpoint | None], Mapping[str, FileRecord]]


class CheckpointStore:
    """The checkpoints of one run. Many may read; only the process that holds the run's lock writes."""

    def __init__(self, root: Path, keep_last: int) -> None:
        """Point at the folder ``root``, which may not exist yet.

        Args:
            root: The run's ``checkpoints`` folder.
            keep_last: How many of the newest checkpoints to keep, at least 1.
        """
        self.root = root
        self.keep_last = keep_last
        self._damaged: frozenset[Path] = frozenset()

    def write(
        self, *, number: int, step: int, kind: Kind, spec_digest: str, metrics: Mapping[str, float], fill: Fill
    ) -> Checkpoint:
        """Write a checkpoint, then remove those that are no longer kept and those of an abandoned future.

        Args:
            number: Which checkpoint of the run this is.
            step: Environment steps trained so far.
            kind: Why it is written.
            spec_digest: `RunSpec.training_digest` of the run.
            metrics: Latest metrics, for people who choose among checkpoints; those that are not finite are left out.
            fill: Writes the files into the folder it is given. Its second argument is a checkpoint whose unchanged
                files it may hard-link: the second newest, so that neighbours never share a file and one damaged byte
                never takes both. It returns the records of the files whose hash it knows; the others are hashed here.

        Raises:
            StorageError: If the disk is full or not writable; earlier checkpoints are then untouched.
        """
        self.recover()
        older = [checkpoint for checkpoint in self.all() if checkpoint.manifest.step < step]
        target = self.root / f"step_{step:012d}"
        with replace_dir(target) as folder:
            known = fill(folder, older[-2] if len(older) >= 2 else None)
            manifest = Manifest(
                number=number,
                step=step,
                kind=kind,
                created_at=datetime.now(UTC),
                spec_digest=spec_digest,
                metrics={key: value for key, value in metrics.items() if math.isfinite(value)},  # JSON has no NaN
                files=_records(folder, known),
            )
            write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        checkpoint = Checkpoint(target, manifest)
        self._prune(checkpoint)
        return checkpoint

    def newest_good(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """Return the newest undamaged checkpoint, and for each newer one that is damaged a sentence that says what.

        From then on the damaged ones do not count: `all` leaves them out, none is a donor, and `write` removes them.
        """
        found: Checkpoint | None = None
        damaged: dict[Path, str] = {}
        for folder in reversed(self._folders()):
            try:
                checkpoint = read_checkpoint(folder)
                self.verify(checkpoint)
            except CheckpointDamaged as error:
                _log.warning("%s", error)
                damaged[folder] = str(error)
            else:
                found = checkpoint
                break
        self._damaged = frozenset(damaged)
        return found, tuple(damaged.values())

    def all(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoints that have a readable manifest, oldest first, without hashing their files."""
        found = []
        for folder in self._folders():
            if folder in self._damaged:
                continue
            try:
                found.append(read_checkpoint(folder))
            except CheckpointDamaged as error:
                _log.warning("%s", error)
        return tuple(found)

    def verify(self, checkpoint: Checkpoint) -> None:
        """Compare every file of ``checkpoint`` with its manifest.

        Raises:
            CheckpointDamaged: If a file is missing or differs; the message names it.
        """
        for name, record in checkpoint.manifest.files.items():
            path = checkpoint.path / name
            try:
                found = hash_file(path)
            except OSError as error:
                raise _damaged(checkpoint.path, name, f"cannot be read ({error.strerror})") from error
            if found.bytes != record.bytes:
                raise _damaged(checkpoint.path, name, f"has {found.bytes} bytes, the manifest says {record.bytes}")
            if found.sha256 != record.sha256:
                raise _damaged(checkpoint.path, name, "has another sha256 than the manifest says")

    def recover(self) -> None:
        """Remove what a killed writer left. For the process that holds the run's lock only."""
        recover_dirs(self.root, "step_*")

    def _folders(self) -> list[Path]:
        return sorted(self.root.glob("step_*"))

    def _prune(self, newest: Checkpoint) -> None:
        # Anything newer than what was just written is damaged or was abandoned by resuming before it.
        folders = self._folders()
        self._damaged -= {newest.path}
        abandoned = [folder for folder in folders if folder.name > newest.path.name or folder in self._damaged]
        kept = [folder for folder in folders if folder not in abandoned]
        with storage_errors(self.root):
            for folder in [*abandoned, *kept[: -self.keep_last]]:
                shutil.rmtree(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the manifest of the checkpoint in ``folder``.

    Raises:
        CheckpointDamaged: If the manifest is missing or unreadable.
    """
    try:
        text = (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise _damaged(folder, MANIFEST_FILE, f"cannot be read ({error.strerror})") from error
    try:
        return Checkpoint(folder, Manifest.model_validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(folder, MANIFEST_FILE, f"is not a manifest of format {FORMAT} ({first['msg']})") from error


def hash_file(path: Path) -> FileRecord:
    """Return size and sha256 of the file at ``path``."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(sha256=digest, bytes=file.tell())


def _records(folder: Path, known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: known[name] if name in known else hash_file(folder / name) for name in names}


def _damaged(folder: Path, name: str, what: str) -> CheckpointDamaged:
    return CheckpointDamaged(f"Checkpoint {folder} is damaged: {name} {what}. The one before it can be used.")
