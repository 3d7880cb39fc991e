"""The registry in the database keeps the contract of every registry, over SQLite."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlplatform.store.database import Database, default_url
from rlplatform.store.registry import DatabaseRegistry
from tests.unit.policy.bundles import write_bundle
from tests.unit.policy.registry_contract import MakeBundle, RegistryContract


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(default_url(tmp_path / "home"))
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def registry(tmp_path: Path, database: Database) -> DatabaseRegistry:
    return DatabaseRegistry(database, tmp_path / "home" / "models")


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    numbers = itertools.count()

    def make(*, weight: float = 1.0, metrics: dict[str, float] | None = None) -> Path:
        return write_bundle(tmp_path / f"bundle{next(numbers)}", weight=weight, metrics=metrics)

    return make


class TestDatabaseRegistry(RegistryContract):
    """The contract, over a database."""
