"""Bringing a schema up to date with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from rlplatform.errors import StoreError
from rlplatform.store.tables import REVISION

_SCRIPTS = Path(__file__).with_name("migrations")


def migrate(connection: Connection, database: str) -> None:
    """Apply every revision that a database lacks.

    Args:
        connection: In a transaction that the caller commits.
        database: What to call it in errors.

    Raises:
        StoreError: A newer rlplatform has made it.
    """
    config = alembic_config()
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"{database} has the schema {found!r} of a newer rlplatform; this one knows schemas up to {REVISION!r}. "
            "Upgrade rlplatform, or use another database."
        )
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)


def alembic_config() -> Config:
    """Return what Alembic must know to find the revisions."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config
