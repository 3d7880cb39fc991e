"""The rows of models, versions and aliases, for `registry`; each function works in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from rlplatform.artifacts.atomic import storage_errors
from rlplatform.names import BUNDLE_JSON_FILE
from rlplatform.policy.bundle import BundleManifest
from rlplatform.policy.registry import Model
from rlplatform.policy.version_folder import VersionRecord
from rlplatform.store.tables import MODEL_ALIASES as ALIASES
from rlplatform.store.tables import MODEL_VERSIONS as VERSIONS
from rlplatform.store.tables import MODELS


def select_models(connection: Connection, *where: ColumnElement[bool]) -> tuple[Model, ...]:
    """Return the models that meet conditions on `MODELS`, by name."""
    names = connection.execute(select(MODELS.c.name).where(~MODELS.c.is_deleted, *where)).scalars().all()
    versions: Mapping[str, list[int]] = {name: [] for name in names}
    aliases: Mapping[str, dict[str, int]] = {name: {} for name in names}
    query = select(VERSIONS.c.model, VERSIONS.c.number).join(MODELS).where(*where).order_by(VERSIONS.c.number)
    for name, number in connection.execute(query):
        versions[name].append(number)
    pointing = select(ALIASES).join(MODELS, ALIASES.c.model == MODELS.c.name).where(*where).order_by(ALIASES.c.alias)
    for name, alias, number in connection.execute(pointing):
        aliases[name][alias] = number
    return tuple(Model(name, tuple(versions[name]), aliases[name]) for name in sorted(names))


def last_number(connection: Connection, name: str) -> int:
    """Return the highest number that a model ever gave; 0 for none."""
    return connection.execute(select(func.max(MODELS.c.last_version)).where(MODELS.c.name == name)).scalar() or 0


def set_last_number(connection: Connection, name: str, number: int) -> None:
    """Note the highest number that a model ever gave; a model that is new, or was deleted, is there from now on."""
    values = {"last_version": number, "is_deleted": False}
    if connection.execute(update(MODELS).where(MODELS.c.name == name).values(values)).rowcount == 0:
        connection.execute(insert(MODELS).values(name=name, **values))


def insert_version(
    connection: Connection, name: str, number: int, folder: Path, record: VersionRecord
) -> BundleManifest:
    """Add the version whose bundle is in `folder`, and return its manifest."""
    with storage_errors(folder):
        text = (folder / BUNDLE_JSON_FILE).read_text(encoding="utf-8")
    manifest = parse_manifest(text)
    values = {
        "model": name,
        "number": number,
        "manifest": text,
        "run_id": manifest.lineage.run_id,
        "files": {file: found.model_dump() for file, found in record.files.items()},
        "published_at": record.published_at,
    }
    connection.execute(insert(VERSIONS).values(values))
    return manifest


def put_alias(connection: Connection, name: str, alias: str, number: int) -> None:
    """Point an alias at a version."""
    where = (ALIASES.c.model == name) & (ALIASES.c.alias == alias)
    if connection.execute(update(ALIASES).where(where).values(number=number)).rowcount == 0:
        connection.execute(insert(ALIASES).values(model=name, alias=alias, number=number))


def parse_manifest(text: str) -> BundleManifest:
    """Return what the text of a policy.json says."""
    return BundleManifest.model_validate(json.loads(text))


def is_version(name: str, number: int) -> ColumnElement[bool]:
    """Return the condition for one version's row."""
    return (VERSIONS.c.model == name) & (VERSIONS.c.number == number)
