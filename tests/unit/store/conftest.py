"""A database of its own for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlplatform.names import DATABASE_FILE
from rlplatform.store.database import Database, default_url


@pytest.fixture(scope="session")
def upgraded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty database, to be copied: making the tables takes longer than most tests."""
    folder = tmp_path_factory.mktemp("database")
    database = Database(default_url(folder))
    database.upgrade()
    database.close()
    return folder / DATABASE_FILE


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return default_url(tmp_path / "home")


@pytest.fixture
def database(database_url: str, upgraded_file: Path, tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "home").mkdir()
    shutil.copyfile(upgraded_file, tmp_path / "home" / DATABASE_FILE)
    database = Database(database_url)
    yield database
    database.close()
