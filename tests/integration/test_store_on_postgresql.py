"""The stores keep their contracts over PostgreSQL, on a server that these tests start themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from rlplatform.store.database import Database
from rlplatform.store.tables import METADATA
from tests.postgresql import postgresql_server
from tests.unit.store.experiment_contract import ExperimentContract
from tests.unit.store.keys_contract import AuditContract, KeyContract, SchemaContract
from tests.unit.store.registry_contract import DatabaseRegistryContract


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(scope="module")
def server(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def database(server: Database) -> Database:
    """Return the server's database, empty: making a new one for each test would take most of the time."""
    with server.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(METADATA.tables)} RESTART IDENTITY"))
    return server


class TestExperiments(ExperimentContract):
    """Experiments in PostgreSQL."""


class TestKeys(KeyContract):
    """Keys in PostgreSQL."""


class TestAudit(AuditContract):
    """The audit log in PostgreSQL."""


class TestSchema(SchemaContract):
    """The schema in PostgreSQL."""


class TestDatabaseRegistry(DatabaseRegistryContract):
    """The registry in PostgreSQL."""
