"""What keys, audit log and schema must be over every database. Subclass each and give the fixture `database`."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from rlplatform.errors import KeyNotFound, SpecError, UnknownNameError
from rlplatform.store.audit import AuditLog
from rlplatform.store.database import Database
from rlplatform.store.keys import KeyStore
from rlplatform.store.tables import API_KEYS, METADATA


class KeyContract:
    """The behaviour of `KeyStore`."""

    @pytest.fixture
    def keys(self, database: Database) -> KeyStore:
        return KeyStore(database)

    def test_a_key_is_known_by_its_secret(self, keys: KeyStore) -> None:
        key, secret = keys.create("ci", ["train", "read"], rate_per_min=60, max_runs=2, max_steps=10**12, max_hours=0.5)
        assert keys.check(secret) == key == keys.get(key.id)
        assert secret.startswith(f"rlp_{key.id}_")
        assert (sorted(key.scopes), key.rate_per_min, key.max_runs) == (["read", "train"], 60, 2)
        assert (key.max_steps, key.max_hours) == (10**12, 0.5)
        assert key.allows("read")
        assert not key.allows("infer")

    def test_admin_opens_everything(self, keys: KeyStore) -> None:
        key = keys.create("root", ["admin"]).key
        assert key.allows("infer")
        assert key.allows("admin")

    def test_the_secret_is_nowhere_else(self, database: Database, keys: KeyStore) -> None:
        new = keys.create("ci", ["read"])
        random = new.secret.split("_", 2)[2]
        with database.read() as connection:
            row = connection.execute(select(API_KEYS)).one()
        assert random not in str(row)
        assert random not in repr(new) + str(new) + repr(keys.list())
        assert keys.create("ci", ["read"]).secret != new.secret

    def test_a_wrong_secret_opens_nothing(self, keys: KeyStore) -> None:
        key, secret = keys.create("ci", ["read"])
        last = "A" if secret[-1] != "A" else "B"
        forged = [
            secret[:-1] + last,
            secret[:-1],
            secret + "A",
            secret.upper(),
            f"rlp_{'0' * 12}_{secret[17:]}",
            key.id,
        ]
        for wrong in [*forged, "", "rlp__", "test-token", "rlp_' OR 1=1", "\0", "\ud800", "x" * 10**6]:
            assert keys.check(wrong) is None

    def test_a_revoked_key_opens_nothing(self, keys: KeyStore) -> None:
        key, secret = keys.create("ci", ["read"])
        revoked = keys.revoke(key.id)
        assert revoked.revoked_at is not None
        assert keys.check(secret) is None
        assert keys.revoke(key.id) == revoked
        assert keys.list() == (revoked,)
        with pytest.raises(KeyNotFound, match="There is no key 'nope'"):
            keys.revoke("nope")

    def test_an_expired_key_opens_nothing(self, keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        expiry = datetime.now(UTC) + timedelta(hours=1)
        key, secret = keys.create("ci", ["read"], expires_at=expiry)
        assert key.expires_at == expiry
        assert keys.check(secret) == key
        monkeypatch.setattr("rlplatform.store.keys.now", lambda: expiry)
        assert keys.check(secret) is None

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"name": "  "}, "name must be 1 to 100 characters"),
            ({"name": "x" * 101}, "name must be 1 to 100 characters"),
            ({"scopes": []}, "at least one scope"),
            ({"scopes": ["reed"]}, "Did you mean 'read'"),
            ({"max_runs": 0}, "`max_runs` must be positive"),
            ({"max_steps": 2**63}, "`max_steps` must be positive"),
            ({"rate_per_min": float("nan")}, "`rate_per_min` must be positive"),
            ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "must be in the future"),
            ({"expires_at": datetime(2999, 1, 1)}, "must be in the future and have a time zone"),
        ],
    )
    def test_a_key_that_makes_no_sense_is_refused(self, keys: KeyStore, given: dict[str, Any], message: str) -> None:
        with pytest.raises((SpecError, UnknownNameError), match=message):
            keys.create(**{"name": "ci", "scopes": ["read"], **given})
        assert keys.list() == ()


class AuditContract:
    """The behaviour of `AuditLog`."""

    def test_entries_are_listed_newest_first_and_filtered(self, database: Database) -> None:
        log = AuditLog(database)
        for number, (actor, action) in enumerate(itertools.product(("k1", "k2"), ("experiment.start", "model.delete"))):
            log.record(actor, action, f"t{number}", {"n": number})
        assert [entry.target for entry in log.list().items] == ["t3", "t2", "t1", "t0"]
        page = log.list(actor="k1", limit=1, offset=1)
        assert ([entry.target for entry in page.items], page.total) == (["t0"], 2)
        assert [entry.detail for entry in log.list(action="model.delete").items] == [{"n": 3}, {"n": 1}]
        assert log.list(target="t2' OR '1'='1").total == 0
        middle = log.list().items[1].at
        assert log.list(since=middle).total + log.list(until=middle).total == 4
        assert log.list(until=log.list().items[-1].at).total == 0


class SchemaContract:
    """What the migrations build."""

    def test_an_upgraded_database_has_the_tables_that_the_code_knows(self, database: Database) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        with database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
            assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
