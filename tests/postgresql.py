"""A private PostgreSQL server for tests: on a Unix socket in a temporary folder, gone when the block ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

INSTALL = "apt-get install -y --no-install-recommends postgresql"
_ACCOUNT = "postgres"  # The server refuses to run as root; Debian's package brings this account.
_PATIENCE_S = 60.0


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Start a server and yield the URL of its database.

    Raises:
        RuntimeError: PostgreSQL is not installed, or does not start.
    """
    programs = _programs()
    account = pwd.getpwnam(_ACCOUNT) if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="rlp-pg-", dir="/tmp"))  # Paths of sockets are short.
    data, log = folder / "data", folder / "log"
    try:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        options = ("-U", _ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        initdb: list[str | Path] = [programs / "initdb", *options, "-D", data]
        with open(log, "wb") as output, _start(initdb, output, account) as process:
            process.wait(_PATIENCE_S)
        settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=50")
        server: list[str | Path] = [programs / "postgres", "-D", data]
        server += [part for setting in settings for part in ("-c", setting)]
        with open(log, "ab") as output, _start(server, output, account) as process:
            try:
                _wait(programs, folder, process, log)
                yield f"postgresql://{_ACCOUNT}@/postgres?host={folder}"
            finally:
                process.send_signal(signal.SIGINT)  # A fast shutdown: connections are cut.
                process.wait(_PATIENCE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    command: Sequence[str | Path], output: BinaryIO, account: pwd.struct_passwd | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd="/",
        stdout=output,
        stderr=output,
        user=account and account.pw_uid,
        group=account and account.pw_gid,
        extra_groups=account and [],
    )


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    program = shutil.which("initdb")
    if program is None:
        raise RuntimeError(f"These tests need PostgreSQL, which is not installed. Run `{INSTALL}`.")
    return Path(program).resolve().parent


def _wait(programs: Path, folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
