"""What was asked of an experiment and is not carried out yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("experiments", sa.Column("wanted", sa.String()))
