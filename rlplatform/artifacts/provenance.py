"""Where a run was made: command, packages, git revision, machine. Collected once per process, with the stdlib only."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rlplatform.names import JOB_ENV_VAR


class Machine(BaseModel):
    """The computer a process runs on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    platform: str
    python: str
    cpu_count: int
    memory_bytes: int | None
    torch: str | None
    """torch's version if the process has imported it."""
    pid: int


class GitRevision(BaseModel):
    """The commit that was checked out where the command was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    revision: str
    dirty: bool
    """Whether tracked files differed from the commit."""


def machine() -> Machine:
    """Describe this computer and process."""
    torch = sys.modules.get("torch")
    return Machine(
        host=socket.gethostname(),
        platform=platform.platform(),
        python=platform.python_version(),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        torch=str(torch.__version__) if torch is not None else None,
        pid=os.getpid(),
    )


def job_id() -> str | None:
    """Return the id of the job whose command this is; None outside `rlplatform jobs`."""
    return os.environ.get(JOB_ENV_VAR) or None


def command_line() -> str:
    """Return the command that started this process, quoted for a shell."""
    return shlex.join(sys.argv)


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Return name and version of every installed distribution, sorted by name, as ``pip freeze`` does."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed package leaves a folder without one
            # Of two versions on sys.path the first is imported.
            found.setdefault(name, distribution.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


@lru_cache(maxsize=8)
def git_revision(folder: Path) -> GitRevision | None:
    """Return what was checked out at ``folder`` when this process first asked; None without a repository or git."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    revision = _git(folder, "rev-parse", "HEAD")
    if not root or not revision:
        return None
    return GitRevision(root=root, revision=revision, dirty=bool(_git(folder, "status", "--porcelain", "-uno")))


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
