"""The stores keep their contracts over SQLite."""

from __future__ import annotations

from tests.unit.store.contract import AuditContract, ExperimentContract, KeyContract, SchemaContract


class TestExperiments(ExperimentContract):
    """Experiments in SQLite."""


class TestKeys(KeyContract):
    """Keys in SQLite."""


class TestAudit(AuditContract):
    """The audit log in SQLite."""


class TestSchema(SchemaContract):
    """The schema in SQLite."""
