"""The model registry in the database: who is which is in rows, the bundles lie in the folders of `version_folder`.

A version is its row: it appears, and goes, with the transaction that adds or deletes that. Folders follow the rows. A
bundle is copied aside first, and renamed to its place inside the transaction; a folder without a row is what a kill
left, and is swept. Writers take turns over the whole registry; readers wait for nobody.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, text, update

from rlplatform.artifacts.atomic import recover_dirs, storage_errors, sync_folder, sync_tree
from rlplatform.artifacts.checkpoint import FileRecord
from rlplatform.errors import Conflict, ModelNotFound
from rlplatform.names import MODELS_DIR
from rlplatform.policy.promotion import PromotionDecision, PromotionRule, check_candidate, compare
from rlplatform.policy.registry import (
    CHAMPION,
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
    verify_files,
    version_numbers,
    version_path,
)
from rlplatform.specs.settings import Settings
from rlplatform.store.database import Database, open_database
from rlplatform.store.model_rows import (
    insert_version,
    is_version,
    last_number,
    parse_manifest,
    put_alias,
    select_models,
    set_last_number,
)
from rlplatform.store.tables import DEPLOYMENTS, MODELS, PROMOTIONS, now
from rlplatform.store.tables import MODEL_ALIASES as ALIASES
from rlplatform.store.tables import MODEL_VERSIONS as VERSIONS

_STAGING = ".publishing-"
_STAGING_MAX_AGE_S = 3600.0
"""A bundle that has been on its way in for longer belongs to nobody any more."""


@dataclass(frozen=True)
class Promotion:
    """What was decided on a candidate, and why."""

    model: str
    number: int
    alias: str
    promoted: bool
    reason: str
    actor: str | None
    """Who asked. None: not known."""
    at: datetime


def open_registry(settings: Settings) -> DatabaseRegistry:
    """Return the registry that the settings name.

    Raises:
        StoreError: The database cannot be reached, or is of a newer version.
    """
    return DatabaseRegistry(open_database(settings), settings.home / MODELS_DIR)


class DatabaseRegistry:
    """A `ModelRegistry` in a database, with its bundles in a folder that every process with that database shares."""

    def __init__(self, database: Database, root: Path) -> None:
        """Keep models in `database`, whose schema is up to date, and bundles in `root`, which may not exist yet."""
        self._database = database
        self.root = root

    def publish(self, name: str, folder: Path) -> ModelVersion:
        """See `ModelRegistry.publish`."""
        check_model_name(name)
        with self._staging() as staged:
            record = fill_version(folder, staged)
            with storage_errors(staged):
                sync_tree(staged)
            with self._writing() as connection:
                number = next_number(name, last_number(connection, name))
                set_last_number(connection, name, number)
                manifest = insert_version(connection, name, number, staged, record)
                path = version_path(self.root, name, number)
                with storage_errors(path):
                    if path.exists():  # A kill between the rename and the commit left it.
                        shutil.rmtree(path)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.rename(staged, path)
                    sync_folder(path.parent)
        return ModelVersion(name, number, path, manifest, record.published_at)

    def models(self) -> tuple[Model, ...]:
        """See `ModelRegistry.models`."""
        with self._database.read() as connection:
            return select_models(connection)

    def model(self, name: str) -> Model:
        """See `ModelRegistry.model`."""
        check_model_name(name)
        with self._database.read() as connection:
            return self._model(connection, name)

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """See `ModelRegistry.versions`."""
        check_model_name(name)
        with self._database.read() as connection:
            self._model(connection, name)
            return self._versions(connection, VERSIONS.c.model == name)

    def versions_of_run(self, run_id: str) -> tuple[ModelVersion, ...]:
        """Return the versions that came of a run, by model, oldest first."""
        with self._database.read() as connection:
            return self._versions(connection, VERSIONS.c.run_id == run_id)

    def resolve(self, reference: str) -> ModelVersion:
        """See `ModelRegistry.resolve`."""
        with self._database.read() as connection:
            return self._resolve(connection, reference)

    def verify(self, version: ModelVersion) -> None:
        """See `ModelRegistry.verify`."""
        with self._database.read() as connection:
            query = select(VERSIONS.c.files).where(is_version(version.name, version.number))
            files = connection.execute(query).scalar()
        if files is None:
            raise ModelNotFound(f"{version.name!r} has no version {version.number} any more: it has been deleted.")
        verify_files(version, {name: FileRecord.model_validate(record) for name, record in files.items()})

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """See `ModelRegistry.set_alias`."""
        check_model_name(name)
        check_alias(alias)
        with self._writing() as connection:
            check_version(self._model(connection, name), number)
            put_alias(connection, name, alias, number)

    def remove_alias(self, name: str, alias: str) -> None:
        """See `ModelRegistry.remove_alias`."""
        check_model_name(name)
        with self._writing() as connection:
            aliased(self._model(connection, name), alias)
            connection.execute(delete(ALIASES).where(ALIASES.c.model == name, ALIASES.c.alias == alias))
            self._check_deployed(connection, name)

    def delete_version(self, name: str, number: int) -> None:
        """See `ModelRegistry.delete_version`."""
        check_model_name(name)
        with ExitStack() as after, self._writing() as connection:
            check_deletable(self._model(connection, name), number)
            connection.execute(delete(VERSIONS).where(is_version(name, number)))
            self._check_deployed(connection, name)
            after.enter_context(_vanishing(version_path(self.root, name, number)))

    def delete_model(self, name: str) -> None:
        """See `ModelRegistry.delete_model`. A model of that name that is published later goes on counting."""
        check_model_name(name)
        with ExitStack() as after, self._writing() as connection:
            self._model(connection, name)
            connection.execute(delete(ALIASES).where(ALIASES.c.model == name))
            connection.execute(delete(VERSIONS).where(VERSIONS.c.model == name))
            connection.execute(update(MODELS).where(MODELS.c.name == name).values(is_deleted=True))
            self._check_deployed(connection, name)
            after.enter_context(_vanishing(self.root / name))

    def promote(
        self,
        reference: str,
        rule: PromotionRule | None = None,
        *,
        alias: str = CHAMPION,
        actor: str | None = None,
    ) -> PromotionDecision:
        """Point `alias` at a version if the rule allows it; the decision and its reason are kept, and returned.

        Args:
            reference: The candidate, as `name@number` or `name@alias`.
            rule: What is asked for. None: the defaults.
            alias: What is to point at it.
            actor: Who asks.

        Raises:
            ModelNotFound: There is no such version.
            RegistryError: The reference does not name one version, or the alias is not valid.
        """
        check_candidate(reference)
        check_alias(alias)
        with self._writing() as connection:
            candidate = self._resolve(connection, reference)
            name, number = candidate.name, candidate.number
            has_champion = alias in self._model(connection, name).aliases
            champion = self._resolve(connection, f"{name}@{alias}") if has_champion else None
            decision = compare(candidate, champion, rule or PromotionRule(), alias=alias)
            if decision.promote:
                put_alias(connection, name, alias, number)
            kept = Promotion(name, number, alias, decision.promote, decision.reason, actor, now())
            connection.execute(insert(PROMOTIONS).values(vars(kept)))
        return decision

    def promotions(self, name: str) -> tuple[Promotion, ...]:
        """Return what was decided on a model's candidates, the latest first.

        Raises:
            ModelNotFound: There is no such model.
        """
        check_model_name(name)
        columns = [column for column in PROMOTIONS.c if column is not PROMOTIONS.c.id]
        query = select(*columns).where(PROMOTIONS.c.model == name).order_by(PROMOTIONS.c.id.desc())
        with self._database.read() as connection:
            self._model(connection, name)
            return tuple(Promotion(**row._mapping) for row in connection.execute(query))

    def sweep(self) -> None:
        """Remove what killed processes left: folders without a row, and bundles that never came in."""
        with self._writing() as connection:
            oldest = time.time() - _STAGING_MAX_AGE_S
            for staged in self.root.glob(f"{_STAGING}*"):
                if staged.stat().st_mtime < oldest:
                    shutil.rmtree(staged, ignore_errors=True)
            recover_dirs(self.root)
            kept = {model.name: model.versions for model in select_models(connection)}
            for versions in self.root.glob(f"*/{VERSIONS_DIR}"):
                recover_dirs(versions)
                name = versions.parent.name
                for number in set(version_numbers(self.root, name)) - set(kept.get(name, ())):
                    with _vanishing(version_path(self.root, name, number)):
                        pass

    def _model(self, connection: Connection, name: str) -> Model:
        found = select_models(connection, MODELS.c.name == name)
        if not found:
            known = connection.execute(select(MODELS.c.name).where(~MODELS.c.is_deleted)).scalars().all()
            raise no_such_model(name, known)
        return found[0]

    def _resolve(self, connection: Connection, reference: str) -> ModelVersion:
        parsed = parse_reference(reference)
        number = choose(self._model(connection, parsed.name), parsed)
        return self._versions(connection, is_version(parsed.name, number))[0]

    def _check_deployed(self, connection: Connection, name: str) -> None:
        """Check that a deployment of a model still has what it deploys, after a change."""
        reference = connection.execute(select(DEPLOYMENTS.c.reference).where(DEPLOYMENTS.c.model == name)).scalar()
        if reference is None:
            return
        try:
            self._resolve(connection, reference)
        except ModelNotFound:
            raise Conflict(
                f"{reference!r} has replicas of its own, which would have nothing to answer with. End them first, by "
                f"DELETE /api/v1/models/{name}/deploy, or deploy another version."
            ) from None

    def _versions(self, connection: Connection, where: ColumnElement[bool]) -> tuple[ModelVersion, ...]:
        query = select(VERSIONS).where(where).order_by(VERSIONS.c.model, VERSIONS.c.number)
        return tuple(self._version(row) for row in connection.execute(query))

    def _version(self, row: Row[Any]) -> ModelVersion:
        path = version_path(self.root, row.model, row.number)
        return ModelVersion(row.model, row.number, path, parse_manifest(row.manifest), row.published_at)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._database.begin() as connection:
            if not self._database.is_sqlite:  # There every transaction that writes is alone.
                connection.execute(text("LOCK TABLE models IN EXCLUSIVE MODE"))
            yield connection

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        staged = self.root / f"{_STAGING}{secrets.token_hex(8)}"
        with storage_errors(staged):
            staged.mkdir(parents=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _vanishing(folder: Path) -> Iterator[None]:
    """Take a folder away at once; it comes back if the block fails, and is gone for good when it ends well."""
    dying = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    if not folder.exists():
        yield
        return
    with storage_errors(folder):
        os.rename(folder, dying)
    try:
        yield
    except BaseException:
        os.rename(dying, folder)
        raise
    shutil.rmtree(dying, ignore_errors=True)  # `sweep` removes what cannot be removed now.
