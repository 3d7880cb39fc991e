"""The model registry as folders.

    <root>/<name>/aliases.json                  {"last_version": 2, "aliases": {"champion": 2}}
    <root>/<name>/versions/000002/              see `version_folder`

Writers hold one lock for the whole registry; readers need none, because folders and `aliases.json` appear whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlplatform.artifacts.atomic import recover_dirs, replace_dir, storage_errors, write_text
from rlplatform.artifacts.locks import file_lock
from rlplatform.errors import ModelNotFound, RegistryError
from rlplatform.names import LOCK_FILE
from rlplatform.policy.bundle import load_bundle, read_manifest
from rlplatform.policy.registry import (
    Model,
    ModelVersion,
    aliased,
    check_alias,
    check_deletable,
    check_model_name,
    check_version,
    choose,
    next_number,
    no_such_model,
    parse_reference,
)
from rlplatform.policy.version_folder import (
    VERSIONS_DIR,
    fill_version,
    read_record,
    read_version,
    remove_folder,
    verify_files,
    version_numbers,
    version_path,
)

INDEX_FILE = "aliases.json"
_LOCK_PATIENCE_S = 60.0


class FolderIndex(BaseModel):
    """`aliases.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    last_version: Annotated[int, Field(ge=0)] = 0
    """The highest number ever given, so that a deleted one is not given again."""
    aliases: dict[str, int] = {}


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
            recover_dirs(self.root / name / VERSIONS_DIR)
            index = self._index(name)
            number = next_number(name, max(index.last_version, *version_numbers(self.root, name), 0))
            with replace_dir(version_path(self.root, name, number)) as target:
                fill_version(folder, target)
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
        return self._version(parsed.name, choose(self.model(parsed.name), parsed))

    def verify(self, version: ModelVersion) -> None:
        """See `ModelRegistry.verify`."""
        verify_files(version, read_version(version.bundle_path).files)

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """See `ModelRegistry.set_alias`."""
        check_alias(alias)
        with self._writing():
            check_version(self.model(name), number)
            index = self._index(name)
            self._write_index(name, index.model_copy(update={"aliases": index.aliases | {alias: number}}))

    def remove_alias(self, name: str, alias: str) -> None:
        """See `ModelRegistry.remove_alias`."""
        with self._writing():
            aliased(self.model(name), alias)
            index = self._index(name)
            left = {other: number for other, number in index.aliases.items() if other != alias}
            self._write_index(name, index.model_copy(update={"aliases": left}))

    def delete_version(self, name: str, number: int) -> None:
        """See `ModelRegistry.delete_version`."""
        with self._writing():
            model = self.model(name)
            check_deletable(model, number)
            index = self._index(name)  # A kill between publishing and writing it may have left it behind.
            self._write_index(name, index.model_copy(update={"last_version": max(index.last_version, *model.versions)}))
            remove_folder(version_path(self.root, name, number))

    def delete_model(self, name: str) -> None:
        """See `ModelRegistry.delete_model`."""
        with self._writing():
            self._check_exists(name)
            remove_folder(self.root / name)

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

    def _exists(self, name: str) -> bool:
        return (self.root / name / INDEX_FILE).is_file() or bool(version_numbers(self.root, name))

    def _check_exists(self, name: str) -> None:
        if not self._exists(check_model_name(name)):
            raise no_such_model(name, [model.name for model in self.models()], self.root)

    def _model(self, name: str) -> Model:
        return Model(name, tuple(version_numbers(self.root, name)), dict(sorted(self._index(name).aliases.items())))

    def _version(self, name: str, number: int) -> ModelVersion:
        path = version_path(self.root, name, number)
        if not path.is_dir():
            raise ModelNotFound(f"{name!r} has no version {number} any more: it has just been deleted.")
        return ModelVersion(name, number, path, read_manifest(path), read_version(path).published_at)

    def _index(self, name: str) -> FolderIndex:
        return read_index(self.root, name)

    def _write_index(self, name: str, index: FolderIndex) -> None:
        write_text(self.root / name / INDEX_FILE, index.model_dump_json(indent=2) + "\n")


def read_index(root: Path, name: str) -> FolderIndex:
    """Return the index of a model in the registry at `root`; an empty one when it has none.

    Raises:
        RegistryError: It is damaged.
    """
    path = root / name / INDEX_FILE
    return read_record(path, FolderIndex) if path.is_file() else FolderIndex()
