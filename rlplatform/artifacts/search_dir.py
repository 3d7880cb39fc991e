"""The folder of one search: its id, its paths, its record, its trials, its lock.

    searches/cartpole-20261121-081530-9f3a/
        search.yaml  search.json  trials.jsonl  state.pkl  tune/
        trials/0003/seed_0/{spec.yaml, run.json, …}     every trial's seed is a run like any other

trials.jsonl is a log: the last line about a trial holds. The process that holds the lock writes; any process may read.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlplatform.artifacts.atomic import recover_files, replace_dir, storage_errors, write_text
from rlplatform.artifacts.jsonl import read_jsonl
from rlplatform.artifacts.listing import find_folder, new_name, newest_first
from rlplatform.artifacts.locks import file_lock, is_locked, lock_note
from rlplatform.artifacts.provenance import command_line, git_revision, job_id, machine, package_versions
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_record import SearchRecord, TrialRecord
from rlplatform.errors import RunStateError, StorageError
from rlplatform.names import (
    LOCK_FILE,
    RECORD_LOCK_FILE,
    SEARCH_FILE,
    SEARCH_SPEC_FILE,
    SEARCH_STATE_FILE,
    SEARCHES_DIR,
    TRIALS_DIR,
    TRIALS_FILE,
)
from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_load import dump_search_spec, load_search_spec


class SearchDir:
    """One search on disk."""

    def __init__(self, path: Path) -> None:
        """Point at the search in the folder ``path``."""
        self.path = path.absolute()

    def __repr__(self) -> str:
        return f"SearchDir({str(self.path)!r})"

    @classmethod
    def create(cls, home: Path, spec: SearchSpec) -> SearchDir:
        """Make a new folder for a search, with search.yaml and search.json in it.

        Raises:
            StorageError: If the folder cannot be written.
        """
        now = datetime.now(UTC)
        path = home.absolute() / SEARCHES_DIR / new_name(spec.title, now)
        record = SearchRecord(
            id=path.name,
            name=spec.title,
            algorithm=spec.run.algorithm.name,
            env=spec.run.env.id,
            sampler=spec.sampler.name,
            scheduler=spec.scheduler.name,
            seeds=spec.seeds,
            objective=spec.objective,
            n_trials=spec.n_trials,
            created_at=now,
            spec_digest=spec.digest(),
            command=command_line(),
            job=job_id(),
            git=git_revision(Path.cwd()),
            machine=machine(),
            versions=package_versions(),
        )
        with replace_dir(path) as folder:
            write_text(folder / SEARCH_SPEC_FILE, dump_search_spec(spec))
            _write_record(folder / SEARCH_FILE, record)
        return cls(path)

    @classmethod
    def open(cls, home: Path, search_id_or_path: str | Path) -> SearchDir:
        """Find a search by its id, the unique beginning of its id, or the path of its folder.

        Raises:
            RunNotFound: If there is no such search, or several begin so.
        """
        path = Path(search_id_or_path)
        if (path / SEARCH_FILE).is_file():
            return cls(path)
        return cls(find_folder(home / SEARCHES_DIR, str(search_id_or_path), "search", "Start one"))

    @property
    def id(self) -> str:
        """The search's id, which is its folder's name."""
        return self.path.name

    @property
    def home(self) -> Path:
        """The folder that holds ``searches/``."""
        return self.path.parents[1]

    @property
    def spec_path(self) -> Path:
        """What was asked for."""
        return self.path / SEARCH_SPEC_FILE

    @property
    def trials_path(self) -> Path:
        """The log of the trials' records."""
        return self.path / TRIALS_FILE

    @property
    def state_path(self) -> Path:
        """What the search goes on from after the death of its driver."""
        return self.path / SEARCH_STATE_FILE

    @property
    def record(self) -> SearchRecord:
        """The search's record, as `read`."""
        return self.read()

    def spec(self) -> SearchSpec:
        """Return what was asked for; this process's variables have no say in it.

        Raises:
            SpecError: If search.yaml was edited into something invalid.
            StorageError: If it cannot be read.
        """
        return load_search_spec(self.spec_path, environ={})

    def read(self) -> SearchRecord:
        """Return the search's record.

        Raises:
            StorageError: If search.json is missing or damaged.
        """
        path = self.path / SEARCH_FILE
        with storage_errors(path):
            text = path.read_bytes()
        try:
            return SearchRecord.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
            raise StorageError(f"{path} is damaged or of another version: {what}.") from error

    def update(self, **fields: Any) -> SearchRecord:
        """Set fields of search.json; no edit of another process is lost.

        Raises:
            StorageError: If search.json cannot be read or written.
        """
        with file_lock(self.path / RECORD_LOCK_FILE):
            new = SearchRecord.model_validate({**dict(self.read()), **fields})
            _write_record(self.path / SEARCH_FILE, new)
            return new

    # --- trials ------------------------------------------------------------------------------------------------------

    def trials(self) -> list[TrialRecord]:
        """Return the latest record of every trial, by number.

        Raises:
            StorageError: If trials.jsonl is damaged or of another version.
        """
        latest: dict[str, dict[str, Any]] = {record["trial_id"]: record for record in read_jsonl(self.trials_path)}
        try:
            records = [TrialRecord.model_validate_json(json.dumps(value)) for value in latest.values()]
        except ValidationError as error:
            raise StorageError(f"{self.trials_path} is of another version: {error.errors()[0]['msg']}.") from error
        return sorted(records, key=lambda record: record.number)

    def append_trials(self, records: Iterable[TrialRecord]) -> None:
        """Note how trials stand now; readers see it at once."""
        with storage_errors(self.trials_path), open(self.trials_path, "a", encoding="utf-8") as file:
            file.write("".join(record.model_dump_json() + "\n" for record in records))

    def rewrite_trials(self, records: Iterable[TrialRecord]) -> None:
        """Replace the log by one line for each trial, atomically."""
        write_text(self.trials_path, "".join(record.model_dump_json() + "\n" for record in records))

    def trial_path(self, trial_id: str) -> Path:
        """Return the folder of a trial."""
        return self.path / TRIALS_DIR / trial_id

    def runs(self, trial: TrialRecord) -> tuple[RunDir, ...]:
        """Return a trial's runs, one for each seed."""
        return tuple(RunDir(self.path / folder) for folder in trial.run_dirs)

    # --- who works on it ---------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one process that drives this search during the block.

        Raises:
            RunStateError: If another process drives it.
        """
        note = f"process {os.getpid()} on {socket.gethostname()}"
        with file_lock(self.path / LOCK_FILE, patience_s=1.0, note=note) as got:
            if not got:
                holder = lock_note(self.path / LOCK_FILE) or "another process"
                raise RunStateError(f"Search {self.id} is being run by {holder}. Stop that first.")
            for file in (TRIALS_FILE, SEARCH_STATE_FILE):
                recover_files(self.path, file)
            yield

    def is_alive(self) -> bool:
        """Return whether some process drives the search. One that is ``running`` and not alive was killed."""
        return is_locked(self.path / LOCK_FILE)


def list_searches(home: Path) -> list[SearchRecord]:
    """Return the records of all searches below ``home``, newest first; unreadable ones are logged and left out."""
    return newest_first(home / SEARCHES_DIR, lambda path: SearchDir(path).read())


def _write_record(path: Path, record: SearchRecord) -> None:
    write_text(path, record.model_dump_json(indent=2) + "\n")
