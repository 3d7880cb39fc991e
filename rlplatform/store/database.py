"""A database by its URL: connections, transactions, and errors in words.

SQLite (write-ahead log) is for one machine; PostgreSQL for several. Both keep to the same rules: a block of `begin` is
one transaction that no other writer's can mix with, a block of `read` sees one moment.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, table, text
from sqlalchemy import column as sql_column
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from rlplatform.artifacts.atomic import storage_errors
from rlplatform.artifacts.locks import file_lock
from rlplatform.errors import MissingPackageError, RlPlatformError, SpecError, StoreError
from rlplatform.names import DATABASE_FILE
from rlplatform.specs.settings import Settings
from rlplatform.store.tables import REVISION

PATIENCE_S = 30.0
"""How long to wait for another writer."""
_WRITES = "rlplatform_writes"
_UPGRADE_LOCK = 0x726C70  # Any number, the same in every process.
_EXAMPLES = "Write it like sqlite:////var/lib/rlplatform.db or postgresql://user:password@host/name."
_VERSION_TABLE = table("alembic_version", sql_column("version_num"))


def default_url(home: Path) -> str:
    """Return the URL of the database that a home has of its own."""
    return URL.create("sqlite", database=str(home.absolute() / DATABASE_FILE)).render_as_string()


def open_database(settings: Settings) -> Database:
    """Return the store that the settings name, with its schema brought up to date.

    Raises:
        StoreError: The database cannot be reached, or is of a newer version.
    """
    url = settings.database_url.get_secret_value() if settings.database_url else default_url(settings.home)
    database = Database(url)
    try:
        database.upgrade()
    except BaseException:
        database.close()
        raise
    return database


class Database:
    """A database that several threads, and several processes with a `Database` each, may use at once."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        """Point at a database; nothing is opened yet.

        Args:
            url: `sqlite:///<path>` or `postgresql://…`.
            patience_s: Seconds to wait for another writer, or for a free connection.

        Raises:
            StoreError: The URL cannot be read, or is of another kind of database.
            MissingPackageError: psycopg is needed and not installed.
        """
        self._url = _read_url(url)
        self._patience_s = patience_s
        self._engine = _make_engine(self._url, patience_s)

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file on this machine."""
        return self._url.get_backend_name() == "sqlite"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Run the block as one transaction that writes: all of it is kept, or none if the block raises.

        On SQLite there is one writer at a time.

        Raises:
            StoreError: The database cannot be reached, or another writer did not finish in time.
        """
        with self._errors(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run the block on the database as it is at its first query, whatever others write meanwhile.

        Raises:
            StoreError: The database cannot be reached.
        """
        with self._errors(), self._engine.connect() as connection:
            if not self.is_sqlite:  # SQLite's transactions are so by themselves.
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def revision(self) -> str | None:
        """Return the revision of the schema; None when there is none yet.

        Raises:
            StoreError: The database cannot be reached.
        """
        if self.is_sqlite and not self._path.exists():  # Connecting would make it.
            return None
        with self.read() as connection:
            if not inspect(connection).has_table(_VERSION_TABLE.name):
                return None
            return connection.execute(select(_VERSION_TABLE.c.version_num)).scalar()

    def upgrade(self) -> None:
        """Bring the schema to what this package works with; the first of several processes does it, the others wait.

        Raises:
            StoreError: The database cannot be reached, or a newer rlplatform has made it.
            StorageError: SQLite's file cannot be made.
        """
        if self.is_sqlite:
            self._make_file()
        if self.revision() == REVISION:
            return
        from rlplatform.store.migrate import migrate  # Alembic is needed only here.

        with self.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            migrate(connection, str(self))

    def close(self) -> None:
        """Close every connection; the next use opens new ones."""
        self._engine.dispose()

    @property
    def _path(self) -> Path:
        return Path(self._url.database or "")

    def _make_file(self) -> None:
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Only if it is not there: closing a file that SQLite has open in this process lets go of SQLite's locks on
            # it, and what is written afterwards is lost once another process takes itself for the last one.
            with suppress(FileExistsError):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(self._path, flags, 0o600))  # It holds hashes of keys.
        # Going over to the write-ahead log does not wait for others by itself, and it is for good.
        lock = self._path.with_name(f".{self._path.name}.lock")
        with self._errors(), file_lock(lock, patience_s=self._patience_s):
            try:
                with closing(sqlite3.connect(self._path, timeout=self._patience_s)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.DatabaseError as error:
                raise self._in_words(error) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise StoreError(
                f"Every connection to {self} has been busy for {self._patience_s:.0f} s. Try again later."
            ) from error
        except StatementError as error:
            if isinstance(error.orig, RlPlatformError):  # A value that a column refused.
                raise error.orig from None
            lost = isinstance(error, DBAPIError) and error.connection_invalidated
            is_state = isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError
            if not lost and not is_state:
                raise  # Of ours: a statement that is wrong.
            raise self._in_words(error.orig or error) from error

    def _in_words(self, error: BaseException) -> StoreError:
        reason = " ".join(str(error).splitlines()[0].split()) if str(error) else type(error).__name__
        if "locked" in reason or getattr(error, "sqlstate", None) == "55P03":
            return StoreError(
                f"{self} has been locked by another writer for {self._patience_s:.0f} s. Try again when it is done."
            )
        what = "the file, its owner and permissions, and the disk" if self.is_sqlite else "that it runs, and the URL"
        return StoreError(f"The database {self} cannot be used: {reason}. Check {what}.")


def _read_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # Its text stays unsaid: it may hold a password.
        raise StoreError(f"The URL of the database cannot be read. {_EXAMPLES}") from error
    if url.drivername == "postgres" or url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    is_file = bool(url.database) and url.database != ":memory:" and not url.query
    if url.drivername in ("sqlite", "sqlite+pysqlite") and is_file:
        return url
    shown = url.render_as_string(hide_password=True)
    raise StoreError(f"The database must be a file of SQLite, or PostgreSQL, got {shown!r}. {_EXAMPLES}")


def _make_engine(url: URL, patience_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url, json_serializer=_to_json, pool_timeout=patience_s, connect_args={"timeout": patience_s}
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    settings = f"-c lock_timeout={int(patience_s * 1000)}"
    try:
        return create_engine(
            url,
            json_serializer=_to_json,
            pool_timeout=patience_s,
            pool_pre_ping=True,  # The server may have been restarted.
            connect_args={"connect_timeout": 10, "options": settings, "application_name": "rlplatform"},
        )
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "PostgreSQL needs the package psycopg, which is missing. Run `pip install 'rlplatform[postgres]'`."
        ) from error


def _to_json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError as error:  # PostgreSQL would refuse what SQLite keeps.
        raise SpecError(f"Numbers must be finite to be kept, got NaN or an infinity ({error}). Use null.") from error


def _set_up_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # Else sqlite3 begins transactions by its own rules, after the first reads.
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another wrote in between; IMMEDIATE waits instead.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
