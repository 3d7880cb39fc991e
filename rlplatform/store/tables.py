"""The tables: what `migrations/` builds and every store queries.

    experiments ─< experiment_runs          models ─< model_versions, model_aliases, promotions
    api_keys                                audit_log                  deployments

Metrics are not here: they stay in each run's metrics.jsonl, which resuming cuts back (see `metrics`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)

from rlplatform.errors import SpecError

REVISION = "0003"
"""The schema that this package works with: the newest in `migrations/versions`."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone; SQLite, which has none, keeps UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn the moment to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Text(TypeDecorator[str]):
    """Text of any length that both databases can keep."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse what PostgreSQL cannot keep, on SQLite too, so that both behave alike.

        Raises:
            SpecError: The text holds a null character or half a surrogate pair.
        """
        if value is not None and ("\0" in value or not _encodes(value)):
            raise SpecError(f"Text must be Unicode without null characters, got {value[:50]!r}. Leave them out.")
        return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _required(name: str, kind: Any, *rest: Any, **options: Any) -> Column[Any]:
    return Column(name, kind, *rest, nullable=False, **options)


EXPERIMENTS = Table(
    "experiments",
    METADATA,
    Column("id", Text, primary_key=True),
    _required("kind", Text),
    _required("name", Text),
    _required("name_folded", Text),  # For searches without regard to case, which SQLite knows for ASCII only.
    _required("algorithm", Text),
    _required("env_id", Text),
    _required("spec", JSON),
    _required("seeds", JSON),
    _required("description", Text),
    _required("hypothesis", Text),
    _required("status", Text),
    Column("wanted", Text),
    Column("reason", Text),
    Column("owner", Text),
    _required("legacy", JSON),
    _required("created_at", UtcDateTime),
    _required("updated_at", UtcDateTime),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Index(None, "status"),
    Index(None, "created_at"),
)

EXPERIMENT_RUNS = Table(
    "experiment_runs",
    METADATA,
    Column("run_id", Text, primary_key=True),
    _required("experiment_id", Text, ForeignKey("experiments.id", ondelete="CASCADE")),
    _required("run_path", Text),
    _required("seed", BigInteger),
    _required("created_at", UtcDateTime),
    UniqueConstraint("experiment_id", "seed"),  # However often a start is repeated, a seed is trained once.
)

MODELS = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    # A deleted model keeps its row, and with it the highest number it ever gave: no reference ever means two policies.
    _required("last_version", Integer),
    _required("is_deleted", Boolean),
)

MODEL_VERSIONS = Table(
    "model_versions",
    METADATA,
    Column("model", Text, ForeignKey("models.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    _required("manifest", Text),  # The text of policy.json.
    Column("run_id", Text, index=True),
    _required("files", JSON),
    _required("published_at", UtcDateTime),
)

MODEL_ALIASES = Table(
    "model_aliases",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    _required("number", Integer),
    # A version that an alias points at cannot go.
    ForeignKeyConstraint(
        ["model", "number"], ["model_versions.model", "model_versions.number"], name="fk_model_aliases_version"
    ),
)

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("id", Integer, primary_key=True),
    _required("model", Text, ForeignKey("models.name"), index=True),
    _required("number", Integer),
    _required("alias", Text),
    _required("promoted", Boolean),
    _required("reason", Text),
    Column("actor", Text),
    _required("at", UtcDateTime),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    _required("name", Text),
    _required("secret_sha256", Text),
    _required("scopes", JSON),
    Column("rate_per_min", Float),
    Column("max_runs", Integer),
    Column("max_steps", BigInteger),
    Column("max_hours", Float),
    _required("created_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column("id", Integer, primary_key=True),
    _required("at", UtcDateTime, index=True),
    _required("actor", Text),
    _required("action", Text),
    _required("target", Text),
    _required("detail", JSON),
)

DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("model", Text, primary_key=True),
    _required("reference", Text),
    _required("replicas", Integer),
    _required("cpus", Float),
    _required("updated_at", UtcDateTime),
)
