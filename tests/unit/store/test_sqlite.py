"""The stores keep their contracts over SQLite."""

from __future__ import annotations

from tests.unit.store.experiment_contract import ExperimentContract
from tests.unit.store.keys_contract import AuditContract, KeyContract, SchemaContract


class TestExperiments(ExperimentContract):
    """Experiments in SQLite."""


class TestKeys(KeyContract):
    """Keys in SQLite."""


class TestAudit(AuditContract):
    """The audit log in SQLite."""


class TestSchema(SchemaContract):
    """The schema in SQLite."""
