"""The audit log: who changed what, and when. Entries are added, and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from rlplatform.store.database import Database
from rlplatform.store.pages import Page, fetch_page
from rlplatform.store.tables import AUDIT_LOG, now


@dataclass(frozen=True)
class AuditEntry:
    """One change."""

    id: int
    at: datetime
    actor: str
    """Id of the key that was shown, or what else says who it was."""
    action: str
    """What was done, such as `experiment.start`."""
    target: str
    """What it was done to, such as an experiment's id."""
    detail: Mapping[str, Any]


class AuditLog:
    """The audit log of a database."""

    def __init__(self, database: Database) -> None:
        """Keep the log in `database`, whose schema is up to date."""
        self._database = database

    def record(self, actor: str, action: str, target: str, detail: Mapping[str, Any] | None = None) -> None:
        """Add an entry.

        Args:
            actor: See `AuditEntry`; so for the others.
            action: See `AuditEntry`.
            target: See `AuditEntry`.
            detail: What else there is to know, as JSON has it; no secrets.
        """
        values = {"at": now(), "actor": actor, "action": action, "target": target, "detail": dict(detail or {})}
        with self._database.begin() as connection:
            connection.execute(insert(AUDIT_LOG).values(values))

    def list(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> Page[AuditEntry]:
        """Return one page of the entries that meet every filter given, the newest first.

        Args:
            actor: Who.
            action: What.
            target: To what.
            since: From this moment on.
            until: Before this moment.
            offset: Entries to pass over.
            limit: Most entries to return, 1 to `MAX_PAGE`.

        Raises:
            SpecError: `offset` or `limit` is out of its range.
        """
        query = select(AUDIT_LOG)
        for column, wanted in (
            (AUDIT_LOG.c.actor, actor),
            (AUDIT_LOG.c.action, action),
            (AUDIT_LOG.c.target, target),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if since is not None:
            query = query.where(AUDIT_LOG.c.at >= since)
        if until is not None:
            query = query.where(AUDIT_LOG.c.at < until)
        with self._database.read() as connection:
            order = (AUDIT_LOG.c.id.desc(),)
            return fetch_page(connection, query, order, (offset, limit), lambda row: AuditEntry(**row._mapping))
