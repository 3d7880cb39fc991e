"""The registry in the database keeps the contract of every registry, and its own, over SQLite."""

from __future__ import annotations

from tests.unit.store.registry_contract import DatabaseRegistryContract


class TestDatabaseRegistry(DatabaseRegistryContract):
    """The registry in SQLite."""
