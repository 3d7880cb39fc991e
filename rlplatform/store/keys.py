"""API keys: who may do what, and how much of it.

A key is shown once, as `rlp_<id>_<random>`. Kept is a SHA-256 of the random part: with 256 random bits there is nothing
to guess, so a slow hash would only slow down every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import Row, insert, select, update

from rlplatform.errors import KeyNotFound, SpecError, unknown_name
from rlplatform.store.database import Database
from rlplatform.store.tables import API_KEYS, now

Scope = Literal["read", "train", "infer", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_SECRET = re.compile(r"rlp_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NO_HASH = hashlib.sha256(b"").hexdigest()
MAX_NAME = 100


@dataclass(frozen=True)
class Key:
    """What is known of a key, which is everything but its secret."""

    id: str
    name: str
    scopes: frozenset[Scope]
    rate_per_min: float | None
    """Most requests a minute. None: no limit of its own; so for the other limits."""
    max_runs: int | None
    """Most experiments at work at once."""
    max_steps: int | None
    """Most environment steps that an experiment may ask for."""
    max_hours: float | None
    """Longest time that a run may ask for."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def allows(self, scope: Scope) -> bool:
        """Return whether the key opens what `scope` opens; `admin` opens everything."""
        return scope in self.scopes or "admin" in self.scopes

    def is_valid(self, at: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class NewKey(NamedTuple):
    """A key that was just made; its secret is nowhere else."""

    key: Key
    secret: str

    def __repr__(self) -> str:
        return f"NewKey(key={self.key!r}, secret=…)"  # Logs show it.


class KeyStore:
    """The keys of a database."""

    def __init__(self, database: Database) -> None:
        """Keep keys in `database`, whose schema is up to date."""
        self._database = database

    def create(
        self,
        name: str,
        scopes: Collection[str],
        *,
        rate_per_min: float | None = None,
        max_runs: int | None = None,
        max_steps: int | None = None,
        max_hours: float | None = None,
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make a key and return it with its secret, which is not kept.

        Args:
            name: Who or what it is for.
            scopes: At least one of `SCOPES`.
            rate_per_min: See `Key`; so for the other limits.
            max_runs: See `Key`.
            max_steps: See `Key`.
            max_hours: See `Key`.
            expires_at: With its time zone. None: never.

        Raises:
            UnknownNameError: A scope is unknown.
            SpecError: The name is empty or too long, there is no scope, a limit is not positive, or it has expired.
        """
        _check(name, scopes, expires_at)
        limits = {
            "rate_per_min": rate_per_min,
            "max_runs": max_runs,
            "max_steps": max_steps,
            "max_hours": max_hours,
        }
        for limit, value in limits.items():
            if value is not None and not 0 < value < 2**63:
                raise SpecError(f"`{limit}` must be positive, got {value}. Leave it out for no limit.")
        id, random = secrets.token_hex(6), secrets.token_urlsafe(32)
        values: dict[str, Any] = {
            "id": id,
            "name": name,
            "scopes": sorted(set(scopes)),
            "secret_sha256": _hash(random),
            "created_at": now(),
            "expires_at": expires_at,
            "revoked_at": None,
            **limits,
        }
        with self._database.begin() as connection:
            connection.execute(insert(API_KEYS).values(values))
        return NewKey(self.get(id), f"rlp_{id}_{random}")

    def check(self, secret: str) -> Key | None:
        """Return the key whose secret this is; None when there is none, or it is revoked or has expired."""
        parts = _SECRET.fullmatch(secret)
        if parts is None:
            return None
        row = self._row(parts[1])
        kept = _NO_HASH if row is None else row.secret_sha256
        if not hmac.compare_digest(kept, _hash(parts[2])) or row is None:
            return None
        key = _key(row)
        return key if key.is_valid(now()) else None

    def get(self, id: str) -> Key:
        """Return one key, whether valid or not.

        Raises:
            KeyNotFound: There is none of that id.
        """
        row = self._row(id)
        if row is None:
            raise KeyNotFound(f"There is no key {id!r}. List them with `rlplatform keys list`.")
        return _key(row)

    def list(self) -> tuple[Key, ...]:
        """Return every key, also those revoked and expired, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.id))
            return tuple(_key(row) for row in rows)

    def revoke(self, id: str) -> Key:
        """Make a key invalid for good, and return it; again has no effect.

        Raises:
            KeyNotFound: There is none of that id.
        """
        unrevoked = (API_KEYS.c.id == id) & API_KEYS.c.revoked_at.is_(None)
        with self._database.begin() as connection:
            connection.execute(update(API_KEYS).where(unrevoked).values(revoked_at=now()))
        return self.get(id)

    def _row(self, id: str) -> Row[Any] | None:
        with self._database.read() as connection:
            return connection.execute(select(API_KEYS).where(API_KEYS.c.id == id)).one_or_none()


def _check(name: str, scopes: Collection[str], expires_at: datetime | None) -> None:
    if not name.strip() or len(name) > MAX_NAME:
        raise SpecError(f"A key's name must be 1 to {MAX_NAME} characters, got {name[:MAX_NAME]!r}. Say who uses it.")
    if not scopes:
        raise SpecError(f"A key needs at least one scope. Give some of {', '.join(SCOPES)}.")
    for scope in scopes:
        if scope not in SCOPES:
            raise unknown_name("scope", scope, SCOPES)
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= datetime.now(UTC)):
        raise SpecError(f"`expires_at` must be in the future and have a time zone, got {expires_at.isoformat()}.")


def _hash(random: str) -> str:
    return hashlib.sha256(random.encode()).hexdigest()


def _key(row: Row[Any]) -> Key:
    values = {name: value for name, value in row._mapping.items() if name != "secret_sha256"}
    return Key(**{**values, "scopes": frozenset(values["scopes"])})
