"""Which databases are taken, what is refused in words, and how several processes share one."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import IntegrityError

from rlplatform.errors import StorageError, StoreError
from rlplatform.store.audit import AuditLog
from rlplatform.store.database import Database, default_url
from rlplatform.store.experiments import ExperimentStore
from rlplatform.store.keys import KeyStore
from rlplatform.store.tables import REVISION
from tests.unit.store.experiment_contract import add


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "cannot be read"),
        ("rlplatform.db", "cannot be read"),
        ("postgresql://user:hunter2@host:port/name", "cannot be read"),
        ("sqlite://", "must be a file of SQLite, or PostgreSQL"),
        ("sqlite:///:memory:", "must be a file of SQLite"),
        ("sqlite:///file:x.db?uri=true", "must be a file of SQLite"),
        ("mysql://root:hunter2@host/name", r"got 'mysql://root:\*\*\*@host/name'"),
        ("sqlite+aiosqlite:///x.db", "must be a file of SQLite"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as refused:
        Database(url)
    assert "hunter2" not in str(refused.value)
    assert "postgresql://user:password@host/name" in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_reached_through_psycopg(scheme: str) -> None:
    database = Database(f"{scheme}://user:hunter2@127.0.0.1:1/name", patience_s=1)
    assert str(database) == "postgresql+psycopg://user:***@127.0.0.1:1/name"
    with pytest.raises(StoreError, match=r"user:\*\*\*@127.0.0.1:1/name cannot be used: .*Check that it runs"):
        database.upgrade()
    database.close()


def test_the_file_is_made_for_its_owner_alone_and_keeps_a_log(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "a b%20?c#d.db"
    database = Database(URL.create("sqlite", database=str(path)).render_as_string())
    assert database.revision() is None
    assert not path.exists()
    database.upgrade()
    assert database.revision() == REVISION
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with database.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.upgrade()
    database.close()


def test_a_database_of_a_newer_version_is_refused_and_untouched(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=rf"schema '9999' of a newer rlplatform; this one knows .* up to '{REVISION}'"):
        database.upgrade()
    assert database.revision() == "9999"


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, but longer than its header " * 10, encoding="utf-8")
    with pytest.raises(StoreError, match=r"notes.txt cannot be used: file is not a database"):
        Database(f"sqlite:///{path}").upgrade()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="file"):
        Database(default_url(tmp_path / "file")).upgrade()


def test_a_table_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such table"):
        KeyStore(Database(default_url(tmp_path))).list()


def test_a_locked_database_is_said_and_can_still_be_read(database: Database, database_url: str) -> None:
    store = ExperimentStore(database)
    made = add(store)
    hasty = Database(database_url, patience_s=0.05)
    with database.begin() as connection:
        connection.execute(text("UPDATE experiments SET reason = 'writing'"))
        with pytest.raises(StoreError, match=r"locked by another writer .* Try again when it is done"):
            ExperimentStore(hasty).update(made.id, reason="too soon")
        assert ExperimentStore(hasty).get(made.id) == made
    assert ExperimentStore(hasty).get(made.id).reason == "writing"
    hasty.close()


def test_a_statement_that_is_wrong_is_not_called_a_state_of_the_database(database: Database) -> None:
    with pytest.raises(IntegrityError, match="UNIQUE"), database.begin() as connection:
        connection.execute(text("INSERT INTO models VALUES ('m', 1, 0), ('m', 1, 0)"))


def _upgrade_and_add(url: str, name: str) -> None:
    database = Database(url)
    database.upgrade()
    for _ in range(5):
        add(ExperimentStore(database), name=name)
    database.close()


def test_processes_that_start_at_once_share_a_new_database(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_upgrade_and_add, args=(url, f"p{index}")) for index in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    database = Database(url)
    assert ExperimentStore(database).list().total == 15
    database.close()


def test_threads_share_a_database(database: Database) -> None:
    store = ExperimentStore(database)
    threads = [threading.Thread(target=lambda: [add(store) for _ in range(3)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.list().total == 24


def test_it_goes_on_after_it_was_closed(database: Database) -> None:
    add(ExperimentStore(database))
    database.close()
    assert ExperimentStore(database).list().total == 1


def test_what_is_written_is_there_for_others(database: Database, tmp_path: Path) -> None:
    add(ExperimentStore(database), name="seen")
    with closing(sqlite3.connect(tmp_path / "home" / "rlplatform.db")) as other:
        assert other.execute("SELECT name FROM experiments").fetchall() == [("seen",)]


def test_a_second_database_in_a_process_does_not_hide_what_the_first_writes_from_others(tmp_path: Path) -> None:
    first, second = Database(default_url(tmp_path)), Database(default_url(tmp_path))
    first.upgrade()
    log = AuditLog(first)
    log.record("test", "first", "x")
    second.upgrade()
    second.close()
    for number in (2, 3):
        log.record("test", "again", "x")
        seen = subprocess.run(
            [sys.executable, "-c", _COUNT_AND_CLOSE, str(tmp_path / "rlplatform.db")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(seen.stdout) == number  # and its connection was the last one, if SQLite has been misled
    first.close()


_COUNT_AND_CLOSE = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM audit_log").fetchone()[0])
connection.close()
"""
