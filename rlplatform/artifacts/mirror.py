"""The copy of a run's folder in an object store, from which another machine can go on.

    RLPLATFORM_REMOTE/runs/<id>.json         which files the folder has, and their hashes: the commit
                      runs/<id>/<sha256>     their contents

Objects never change; what is in the store already, such as the old chunks of a replay buffer, is not sent again. The
index is replaced last, in one write, so a push that is killed leaves the copy as it was before: checkpoints and metrics
of one moment. Then objects that no index names are removed.

One machine at a time goes on with a run. Each copy of the folder has a name of its own, which the index repeats; a copy
that was neither the last to push nor taken from the last push is refused.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rlplatform.artifacts.atomic import replace_dir, storage_errors, write_text
from rlplatform.artifacts.checkpoint import Checkpoint, FileRecord, hash_file, read_checkpoint
from rlplatform.artifacts.listing import beginning_with
from rlplatform.artifacts.remote import RemoteFolder
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import CheckpointDamaged, RunNotFound, RunStateError, StorageError
from rlplatform.logs import get_logger
from rlplatform.names import CHECKPOINTS_DIR, MANIFEST_FILE, REQUEST_FILE, RUNS_DIR, SEARCHES_DIR
from rlplatform.specs.settings import load_settings

INDEX_SUFFIX = ".json"
STATE_FILE = ".mirror.json"
"""In the folder itself: what `State` says."""
_SNAPSHOT = ".mirror-"
_THREADS = 8
_ATTEMPTS = 3

Push = Callable[[], None]

_log = get_logger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Index(_Part):
    """What a folder held when it was pushed."""

    format: Literal[1] = 1
    number: int
    """Counts the pushes of the folder, over all machines."""
    writer: str
    """Name of the copy that pushed."""
    host: str
    """Machine that it lay on, for people."""
    pushed_at: datetime
    step: int
    """Environment steps of the newest checkpoint; -1 before the first."""
    files: dict[str, FileRecord]
    """By path inside the folder, with forward slashes."""


class State(_Part):
    """What a copy of the folder knows of itself."""

    writer: str
    taken: int = -1
    """Number of the push that it was taken from. -1: it began here."""


class Mirror:
    """A folder here, and its copy in the object store."""

    def __init__(self, folder: Path, remote: RemoteFolder) -> None:
        """Tie ``folder``, which need not exist yet, to its copy under ``remote``."""
        self.folder = folder
        self._remote = remote
        self._key = f"{folder.parent.name}/{folder.name}"

    def push(self) -> None:
        """Bring the copy up to date.

        Raises:
            RunStateError: Another machine has gone on with the folder.
            StorageError: The store cannot be reached or written; the copy is then as it was.
        """
        theirs, state = self.index(), self._state()
        if theirs is not None and not _is_known(theirs, state):
            raise RunStateError(
                f"{self.folder.name} went on from {theirs.host}, step {theirs.step:,} at {theirs.pushed_at:%F %T} UTC; "
                f"what is in {self.folder} is not copied over that. Stop one of the two."
            )
        write_text(self.folder / STATE_FILE, state.model_dump_json())
        with storage_errors(self.folder), _snapshot(self.folder) as snapshot:
            files, step = _records(snapshot)
            index = Index(
                number=theirs.number + 1 if theirs else 0,
                writer=state.writer,
                host=socket.gethostname(),
                pushed_at=datetime.now(UTC),
                step=step,
                files=files,
            )
            self._send(snapshot, index)

    def _send(self, snapshot: Path, index: Index) -> None:
        """Send what the store lacks, then the index, then remove what no index names any more."""
        there = self._remote.objects_in(self._key)
        wanted = {record.sha256: (name, record.bytes) for name, record in index.files.items()}
        missing = [digest for digest, (_, n_bytes) in wanted.items() if there.get(digest) != n_bytes]

        def send(digest: str) -> None:
            name, n_bytes = wanted[digest]
            self._remote.send(snapshot / name, n_bytes, self._object(digest))

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(send, missing))
            self._remote.write(f"{self._key}{INDEX_SUFFIX}", index.model_dump_json(indent=1).encode())
            list(pool.map(lambda digest: self._remote.delete(self._object(digest)), there.keys() - wanted.keys()))

    def pull(self) -> None:
        """Replace the folder by its copy.

        Raises:
            RunNotFound: There is no copy.
            StorageError: The store cannot be reached, an object is missing, or the folder cannot be written.
        """
        for _ in range(_ATTEMPTS):
            index = self.index()
            if index is None:
                raise RunNotFound(f"There is no {self._key} in {self._remote.uri}.")
            with replace_dir(self.folder) as folder:
                with ThreadPoolExecutor(_THREADS) as pool:
                    found = list(pool.map(lambda item: self._fetch(folder, *item), index.files.items()))
                missing = [name for name, whole in zip(index.files, found, strict=True) if not whole]
                if missing and self.index() != index:
                    continue  # it was pushed to while we read
                for name in missing:
                    _log.warning("%s of %s/%s is missing or damaged", name, self._remote.uri, self._key)
                state = State(writer=secrets.token_hex(8), taken=index.number)
                write_text(folder / STATE_FILE, state.model_dump_json())
            _log.info("took %s, step %d, from %s", self._key, index.step, self._remote.uri)
            return
        raise StorageError(f"{self._key} in {self._remote.uri} changes all the time: another machine trains it.")

    def index(self) -> Index | None:
        """Return what the copy holds; None if there is none.

        Raises:
            StorageError: The store cannot be reached, or the index is of another version.
        """
        text = self._remote.read(f"{self._key}{INDEX_SUFFIX}")
        try:
            return None if text is None else Index.model_validate_json(text)
        except ValidationError as error:
            raise StorageError(
                f"{self._remote.uri}/{self._key}{INDEX_SUFFIX} is damaged or of another version."
            ) from error

    def is_behind(self) -> bool:
        """Return whether another machine has taken the folder at least as far as it is here."""
        theirs = self.index()
        return (
            theirs is not None
            and not _is_known(theirs, self._state())
            and theirs.step >= _newest_step(_checkpoints(self.folder))
        )

    def _state(self) -> State:
        try:
            return State.model_validate_json((self.folder / STATE_FILE).read_bytes())
        except (FileNotFoundError, ValidationError):
            return State(writer=secrets.token_hex(8))

    def _object(self, digest: str) -> str:
        return f"{self._key}/{digest}"

    def _fetch(self, folder: Path, name: str, record: FileRecord) -> bool:
        """Write one file of the copy; return whether it is what the index says."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise StorageError(f"{self._remote.uri}/{self._key} names the file {name!r}, outside of its folder.")
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._remote.fetch(self._object(record.sha256), path) and hash_file(path) == record


def mirror_of(folder: Path) -> Mirror | None:
    """Return the mirror of a run's or a search's folder; None without RLPLATFORM_REMOTE.

    A run inside a search is copied with its search.

    Raises:
        SpecError: RLPLATFORM_REMOTE is not valid.
        StorageError: The store cannot be reached.
    """
    remote = load_settings().remote
    if remote is None or folder.parent.name not in (RUNS_DIR, SEARCHES_DIR):
        return None
    return Mirror(folder, RemoteFolder(remote))


@contextmanager
def mirrored(folder: Path) -> Iterator[Push]:
    """Copy a folder to RLPLATFORM_REMOTE when the block begins, when it ends, and when what it yields is called.

    Only at the beginning does a store that cannot be used raise: later, work goes on without it, the log says so, and
    the next push takes everything along. Without RLPLATFORM_REMOTE nothing happens.

    Raises:
        RunStateError: Another machine has gone on with the folder.
        StorageError: The store cannot be used.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        yield lambda: None
        return
    mirror.push()

    def push() -> None:
        try:
            mirror.push()
        except (StorageError, RunStateError) as error:
            _log.error("%s was not copied: %s", folder.name, error)

    try:
        yield push
    finally:
        push()


def open_run(home: Path, run: str | Path) -> RunDir:
    """Find a run as `RunDir.open`; take it from RLPLATFORM_REMOTE if it is not here, or has gone on elsewhere.

    Raises:
        RunNotFound: There is no such run, here or there.
        StorageError: The store cannot be used.
    """
    try:
        found = RunDir.open(home, run)
    except RunNotFound as error:
        found = RunDir(home / RUNS_DIR / _remote_id(Path(run).name, error))
        Mirror(found.path, RemoteFolder(str(load_settings().remote))).pull()
        return found
    mirror = mirror_of(found.path)
    if mirror is not None and not found.is_alive() and mirror.is_behind():
        mirror.pull()
    return found


def _remote_id(run: str, error: RunNotFound) -> str:
    """Return the one run in the store whose id begins so."""
    remote = load_settings().remote
    if remote is None:
        raise error
    known = [name.removesuffix(INDEX_SUFFIX) for name in RemoteFolder(remote).objects_in(RUNS_DIR)]
    begins = beginning_with(run, known)
    if len(begins) != 1:
        there = f"{len(begins)} begin so" if begins else "nor is it"
        raise RunNotFound(f"{error} In {remote.partition('?')[0]}: {there}.") from None
    return begins[0]


def _is_known(theirs: Index, state: State) -> bool:
    """Return whether a copy of the folder has everything that the store has."""
    return theirs.writer == state.writer or theirs.number == state.taken


@contextmanager
def _snapshot(folder: Path) -> Iterator[Path]:
    """Yield a folder of hard links to the files of ``folder``, without locks, requests and what is half-written.

    Files are replaced by renaming, removed, or appended to, none of which changes the first bytes of what is linked.
    """
    for left in folder.glob(f"{_SNAPSHOT}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_SNAPSHOT, dir=folder) as temporary:
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            place = temporary / Path(parent).relative_to(folder)
            place.mkdir(parents=True, exist_ok=True)
            for name in names:
                path = Path(parent, name)
                if name.startswith(".") or name == REQUEST_FILE or path.is_symlink() or not path.is_file():
                    continue
                with suppress(FileNotFoundError):  # removed since the folder was listed
                    os.link(path, place / name)
        yield Path(temporary)


def _records(folder: Path) -> tuple[dict[str, FileRecord], int]:
    """Return the records of all files below ``folder``, and its newest step. Those of checkpoints are known already."""
    checkpoints = _checkpoints(folder)
    files: dict[str, FileRecord] = {}
    for checkpoint in checkpoints:
        base = checkpoint.path.relative_to(folder)
        files |= {(base / name).as_posix(): record for name, record in checkpoint.manifest.files.items()}
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files = {name: files[name] if name in files else hash_file(path) for name, path in sorted(paths.items())}
    return files, _newest_step(checkpoints)


def _checkpoints(folder: Path) -> list[Checkpoint]:
    found = []
    for manifest in folder.glob(f"**/{CHECKPOINTS_DIR}/step_*/{MANIFEST_FILE}"):
        with suppress(CheckpointDamaged):
            found.append(read_checkpoint(manifest.parent))
    return found


def _newest_step(checkpoints: Iterable[Checkpoint]) -> int:
    return max((checkpoint.manifest.step for checkpoint in checkpoints), default=-1)
