"""The model registry as folders.

    <root>/<name>/aliases.json                  {"last_version": 2, "aliases": {"champion": 2}}
    <root>/<name>/versions/000002/version.json  when it was published, and the sha256 of every file:
                                 /policy.onnx policy.json  [model.zip] [normalizer.npz] [spec.yaml]

Writers hold one lock for the whole registry; readers need none, because folders and `aliases.json` appear whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlplatform.artifacts.atomic import recover_dirs, replace_dir, storage_errors, write_text
from rlplatform.artifacts.checkpoint import FileRecord, hash_file
from rlplatform.artifacts.locks import file_lock
from rlplatform.errors import BundleError, ModelNotFound, RegistryError, did_you_mean
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE, LOCK_FILE, MODEL_FILE, NORMALIZER_FILE, SPEC_FILE
from rlplatform.policy.bundle import load_bundle, read_manifest
from rlplatform.policy.registry import (
    CHAMPION,
    MAX_VERSION,
    Model,
    ModelVersion,
    check_alias,
    check_model_name,
    parse_reference,
)

_ALIASES_FILE = "aliases.json"
_VERSION_FILE = "version.json"
_VERSIONS_DIR = "versions"
_BESIDE = (MODEL_FILE, NORMALIZER_FILE, SPEC_FILE)
_LOCK_PATIENCE_S = 60.0

_Record = TypeVar("_Record", bound=BaseModel)


class _Index(BaseModel):
    """`aliases.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    last_version: Annotated[int, Field(ge=0)] = 0
    """The highest number ever given, so that a deleted one is not given again."""
    aliases: dict[str, int] = {}


class _VersionRecord(BaseModel):
    """`version.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    published_at: datetime
    files: dict[str, FileRecord]


class FolderRegistry:
    """A `ModelRegistry` in a folder on a local or shared disk."""

    def __init__(self, root: Path) -> None:
        """Point at `root`, the home's `models` folder, which may not exist yet."""
        self.root = root

    def publish(self, name: str, folder: Path) -> ModelVersion:
        """See `ModelRegistry.publish`."""
        check_model_name(name)
        load_bundle(folder)
        with self._writing():
            recover_dirs(self.root / name / _VERSIONS_DIR)
            index = self._index(name)
            number = max(index.last_version, *self._numbers(name), 0) + 1
            if number > MAX_VERSION:
                raise RegistryError(f"{name!r} has had {MAX_VERSION} versions, the most. Publish under another name.")
            with replace_dir(self._version_path(name, number)) as target:
                for file in (BUNDLE_ONNX_FILE, BUNDLE_JSON_FILE, *_BESIDE):
                    if file not in _BESIDE or (folder / file).is_file():
                        shutil.copyfile(folder / file, target / file)
                load_bundle(target)  # What is kept is what was checked, also if the source changed in between.
                record = _VersionRecord(
                    published_at=datetime.now(UTC),
                    files={file.name: hash_file(file) for file in sorted(target.iterdir())},
                )
                write_text(target / _VERSION_FILE, record.model_dump_json(indent=2) + "\n")
            self._write_index(name, index.model_copy(update={"last_version": number}))
        return self._version(name, number)

    def models(self) -> tuple[Model, ...]:
        """See `ModelRegistry.models`."""
        with storage_errors(self.root):
            found = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []
        return tuple(self._model(name) for name in found if not name.startswith(".") and self._exists(name))

    def model(self, name: str) -> Model:
        """See `ModelRegistry.model`."""
        self._check_exists(name)
        return self._model(name)

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """See `ModelRegistry.versions`."""
        return tuple(self._version(name, number) for number in self.model(name).versions)

    def resolve(self, reference: str) -> ModelVersion:
        """See `ModelRegistry.resolve`."""
        parsed = parse_reference(reference)
        model = self.model(parsed.name)
        number = parsed.number
        if parsed.alias is not None:
            number = self._aliased(model, parsed.alias)
        elif number is None:
            number = model.aliases.get(CHAMPION) or max(model.versions, default=None)
        if number is None:
            raise ModelNotFound(f"{parsed.name!r} has no versions. Publish one with `rlplatform models publish`.")
        self._check_version(model, number)
        return self._version(parsed.name, number)

    def verify(self, version: ModelVersion) -> None:
        """See `ModelRegistry.verify`."""
        for name, record in self._record(version.bundle_path).files.items():
            path = version.bundle_path / name
            if not path.is_file() or hash_file(path) != record:
                what = "has changed since it was published" if path.is_file() else "is missing"
                raise BundleError(f"{path} of {version.reference} {what}. Delete the version and publish it again.")

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """See `ModelRegistry.set_alias`."""
        check_alias(alias)
        with self._writing():
            self._check_version(self.model(name), number)
            index = self._index(name)
            self._write_index(name, index.model_copy(update={"aliases": index.aliases | {alias: number}}))

    def remove_alias(self, name: str, alias: str) -> None:
        """See `ModelRegistry.remove_alias`."""
        with self._writing():
            self._aliased(self.model(name), alias)
            index = self._index(name)
            left = {other: number for other, number in index.aliases.items() if other != alias}
            self._write_index(name, index.model_copy(update={"aliases": left}))

    def delete_version(self, name: str, number: int) -> None:
        """See `ModelRegistry.delete_version`."""
        with self._writing():
            model = self.model(name)
            self._check_version(model, number)
            if pointing := sorted(alias for alias, target in model.aliases.items() if target == number):
                raise RegistryError(
                    f"{name}@{number} cannot be deleted: {', '.join(map(repr, pointing))} points at it. "
                    "Move or remove the alias first."
                )
            index = self._index(name)  # A kill between publishing and writing it may have left it behind.
            self._write_index(name, index.model_copy(update={"last_version": max(index.last_version, *model.versions)}))
            self._remove(self._version_path(name, number))

    def delete_model(self, name: str) -> None:
        """See `ModelRegistry.delete_model`."""
        with self._writing():
            self._check_exists(name)
            self._remove(self.root / name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with file_lock(self.root / LOCK_FILE, patience_s=_LOCK_PATIENCE_S) as got:
            if not got:
                raise RegistryError(
                    f"The registry {self.root} has been written to by another process for "
                    f"{_LOCK_PATIENCE_S:.0f} s. Try again when it is done."
                )
            yield

    def _remove(self, folder: Path) -> None:
        # The rename makes it vanish at once; `recover_dirs` clears what a kill leaves of it.
        dying = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
        with storage_errors(folder):
            os.rename(folder, dying)
            shutil.rmtree(dying)

    def _version_path(self, name: str, number: int) -> Path:
        return self.root / name / _VERSIONS_DIR / f"{number:06d}"

    def _numbers(self, name: str) -> list[int]:
        folder = self.root / name / _VERSIONS_DIR
        with storage_errors(folder):
            return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def _exists(self, name: str) -> bool:
        return (self.root / name / _ALIASES_FILE).is_file() or bool(self._numbers(name))

    def _check_exists(self, name: str) -> None:
        if not self._exists(check_model_name(name)):
            known = [model.name for model in self.models()]
            hint = did_you_mean(name, known) if known else "None is published yet."
            raise ModelNotFound(f"No model {name!r} in {self.root}. {hint} Publish with `rlplatform models publish`.")

    def _check_version(self, model: Model, number: int) -> None:
        if number not in model.versions:
            raise ModelNotFound(f"{model.name!r} has no version {number}. It has {_listed(model.versions)}.")

    def _aliased(self, model: Model, alias: str) -> int:
        if alias not in model.aliases:
            raise ModelNotFound(f"{model.name!r} has no alias {alias!r}. It has {_listed(sorted(model.aliases))}.")
        return model.aliases[alias]

    def _model(self, name: str) -> Model:
        return Model(name, tuple(self._numbers(name)), dict(sorted(self._index(name).aliases.items())))

    def _version(self, name: str, number: int) -> ModelVersion:
        path = self._version_path(name, number)
        if not path.is_dir():
            raise ModelNotFound(f"{name!r} has no version {number} any more: it has just been deleted.")
        return ModelVersion(name, number, path, read_manifest(path), self._record(path).published_at)

    def _record(self, path: Path) -> _VersionRecord:
        return _read(path / _VERSION_FILE, _VersionRecord)

    def _index(self, name: str) -> _Index:
        path = self.root / name / _ALIASES_FILE
        return _read(path, _Index) if path.is_file() else _Index()

    def _write_index(self, name: str, index: _Index) -> None:
        write_text(self.root / name / _ALIASES_FILE, index.model_dump_json(indent=2) + "\n")


def _read(path: Path, kind: type[_Record]) -> _Record:
    try:
        with storage_errors(path):
            return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RegistryError(f"{path} is damaged: {error.errors()[0]['msg']}. Restore it from a copy.") from error


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
