"""The folder of one run: its id, its paths, its record, its lock, and the requests to it.

    runs/cartpole-v1-ppo-s0-20261121-041530-9f3a/
        spec.yaml  run.json  metrics.jsonl  evaluations.jsonl  metrics.csv  tb/  checkpoints/  best/

Who may write what: the process that holds the lock writes everything; any process may change run.json through
`RunDir.edit` and leave a request, each under the record's lock. So who holds both is the only writer.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue, ValidationError

from rlplatform.artifacts.atomic import recover_dirs, recover_files, replace_dir, storage_errors, write_json, write_text
from rlplatform.artifacts.listing import find_folder, new_name, newest_first
from rlplatform.artifacts.locks import file_lock, is_locked, lock_note
from rlplatform.artifacts.provenance import command_line, git_revision, job_id, machine, package_versions
from rlplatform.artifacts.run_record import Amendment, Attempt, RunProgress, RunRecord
from rlplatform.artifacts.run_state import AT_REST, FINISHED, transition
from rlplatform.errors import RunStateError, StorageError
from rlplatform.names import (
    BEST_DIR,
    CHECKPOINTS_DIR,
    EVALUATIONS_FILE,
    LOCK_FILE,
    METRICS_CSV_FILE,
    METRICS_FILE,
    RECORD_LOCK_FILE,
    REQUEST_FILE,
    RUN_FILE,
    RUNS_DIR,
    SEARCHES_DIR,
    SPEC_FILE,
    TENSORBOARD_DIR,
    TRIALS_DIR,
)
from rlplatform.specs.load import dump_spec, load_run_spec
from rlplatform.specs.run import RunSpec

Action = Literal["pause", "stop"]
AttemptEnd = Literal["completed", "stopped", "paused", "failed", "queued"]

_LOCK_PATIENCE_S = 1.0
"""Longer than `is_locked` of somebody else holds the lock."""


class RunDir:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        """Point at the run in the folder ``path``."""
        self.path = path.absolute()

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunDir) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    @classmethod
    def create(cls, home: Path, spec: RunSpec, path: Path | None = None) -> RunDir:
        """Make a new folder for a run of ``spec``, with spec.yaml and run.json in it.

        Args:
            home: The folder that holds ``runs/``.
            spec: What to train, with every ``auto`` resolved.
            path: Where, for the run of a search's trial. None: under ``runs/``, with an id of its own.

        Raises:
            StorageError: If the folder cannot be written.
        """
        now = datetime.now(UTC)
        if path is None:
            path = home.absolute() / RUNS_DIR / new_name(f"{spec.title}-s{spec.seed}", now)
            if path.exists():  # one in 65,536 within the same second
                return cls.create(home, spec)
        record = RunRecord(
            id=cls(path).id,
            name=spec.title,
            algorithm=spec.algorithm.name,
            env=spec.env.id,
            seed=spec.seed,
            created_at=now,
            spec_digest=spec.training_digest(),
            env_backend=spec.env.backend,
            env_state=spec.env.state,
            progress=RunProgress(total=spec.budget.total_timesteps),
            command=command_line(),
            job=job_id(),
            git=git_revision(Path.cwd()),
            machine=machine(),
            versions=package_versions(),
        )
        with replace_dir(path) as folder:
            write_text(folder / SPEC_FILE, dump_spec(spec))
            _write_record(folder / RUN_FILE, record)
        return cls(path)

    @classmethod
    def open(cls, home: Path, run_id_or_path: str | Path) -> RunDir:
        """Find a run by its id, the unique beginning of its id, or the path of its folder.

        Raises:
            RunNotFound: If there is no such run, or several begin so.
        """
        path = Path(run_id_or_path)
        for place in (path, home / path):  # the id of a trial's run is its path below home
            if path.name and (place / RUN_FILE).is_file():
                return cls(place)
        return cls(find_folder(home / RUNS_DIR, str(run_id_or_path), "run", "Train one"))

    @property
    def id(self) -> str:
        """The run's id: its folder's name, or for the run of a trial its path below home."""
        return self.path.relative_to(self.home).as_posix() if self._is_of_trial else self.path.name

    @property
    def home(self) -> Path:
        """The folder that holds ``runs/`` and ``searches/``."""
        return self.path.parents[4 if self._is_of_trial else 1]

    @property
    def _is_of_trial(self) -> bool:
        parents = self.path.parents  # searches/<id>/trials/<trial>/seed_<n>
        return len(parents) > 4 and parents[1].name == TRIALS_DIR and parents[3].name == SEARCHES_DIR

    @property
    def spec_path(self) -> Path:
        """The run's spec, with every ``auto`` resolved and every amendment made."""
        return self.path / SPEC_FILE

    @property
    def run_path(self) -> Path:
        """The run's record."""
        return self.path / RUN_FILE

    @property
    def metrics_path(self) -> Path:
        """Training metrics, one JSON object a line."""
        return self.path / METRICS_FILE

    @property
    def metrics_csv_path(self) -> Path:
        """The same with one column for each key."""
        return self.path / METRICS_CSV_FILE

    @property
    def evaluations_path(self) -> Path:
        """Evaluations, one JSON object a line."""
        return self.path / EVALUATIONS_FILE

    @property
    def checkpoints_path(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS_DIR

    @property
    def best_path(self) -> Path:
        """The policy folder of the best evaluation so far."""
        return self.path / BEST_DIR

    @property
    def tb_path(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.path / TENSORBOARD_DIR

    def spec(self) -> RunSpec:
        """Return the run's spec.

        Raises:
            SpecError: If spec.yaml was edited into something invalid.
            StorageError: If it cannot be read.
        """
        return load_run_spec(self.spec_path, environ={}).spec

    def read(self) -> RunRecord:
        """Return the run's record.

        Raises:
            StorageError: If run.json is missing or damaged.
        """
        with storage_errors(self.run_path):
            text = self.run_path.read_bytes()
        try:
            return RunRecord.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
            raise StorageError(f"{self.run_path} is damaged or of another version: {what}.") from error

    def edit(self, change: Callable[[RunRecord], Mapping[str, Any]]) -> RunRecord:
        """Change run.json by what ``change`` says of the present record; no edit of another process is lost.

        Args:
            change: Returns the new values by field name. It runs under a lock, so it should be short.

        Raises:
            RunStateError: If the state machine forbids the new state.
            StorageError: If run.json cannot be read or written.
        """
        with self._record_lock():
            old = self.read()
            new = RunRecord.model_validate({**dict(old), **change(old)})
            try:
                transition(old.state, new.state)
            except RunStateError as error:
                raise RunStateError(f"Run {self.id}: {error}") from error
            _write_record(self.run_path, new)
            return new

    def update(self, **fields: Any) -> RunRecord:
        """Set fields of run.json, as `edit`."""
        return self.edit(lambda _: fields)

    def begin_attempt(self, step: int) -> RunRecord:
        """Record that this process starts to train the run at ``step``, and that it is running."""
        now = datetime.now(UTC)
        attempt = Attempt(started_at=now, start_step=step, machine=machine(), command=command_line())
        return self.edit(
            lambda old: {
                "state": "running",
                "reason": None,
                "started_at": old.started_at or now,
                "ended_at": None,
                "attempts": (*_close(old.attempts, reason="its process or machine died"), attempt),
            }
        )

    def end_attempt(self, state: AttemptEnd, step: int, reason: str, **fields: Any) -> RunRecord:
        """Record that the running attempt ended at ``step`` in ``state``, for ``reason``.

        An attempt that failed before `begin_attempt`, on a run that was paused or over, leaves the run as it was.

        Args:
            state: The state it leaves the run in.
            step: Environment steps trained.
            reason: Why, in words.
            **fields: Other fields of run.json to set.
        """
        now = datetime.now(UTC)

        def end(old: RunRecord) -> dict[str, Any]:
            if old.state in AT_REST:
                return {}
            return {
                "state": state,
                "reason": reason,
                "ended_at": now if state in FINISHED else None,
                "attempts": _close(old.attempts, ended_at=now, end_step=step, reason=reason),
                **fields,
            }

        return self.edit(end)

    def amend(
        self, spec: RunSpec, *, step: int, changes: Mapping[str, tuple[JsonValue, JsonValue]], note: str | None = None
    ) -> RunRecord:
        """Make ``spec`` the run's spec and record what changed. For the process that holds the lock.

        Args:
            spec: The whole new spec.
            step: Environment steps trained under the old one.
            changes: Old and new value by field path.
            note: Anything a reader should know, such as the new horizon of schedules.
        """

        def amended(old: RunRecord) -> dict[str, Any]:
            amendment = Amendment(
                at=datetime.now(UTC), step=step, changes=dict(changes), old_digest=old.spec_digest, note=note
            )
            return {
                "spec_digest": spec.training_digest(),
                "amendments": (*old.amendments, amendment),
                "progress": old.progress.model_copy(update={"total": spec.budget.total_timesteps}),
            }

        # First the record: killed between the two, the old spec is still that of the checkpoints.
        record = self.edit(amended)
        write_text(self.spec_path, dump_spec(spec))
        return record

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one process that trains this run during the block, and clear up what a killed one left half-written.

        Raises:
            RunStateError: If another process trains it.
        """
        note = f"process {os.getpid()} on {socket.gethostname()}"
        with file_lock(self.path / LOCK_FILE, patience_s=_LOCK_PATIENCE_S, note=note) as got:
            if not got:
                holder = lock_note(self.path / LOCK_FILE) or "another process"
                raise RunStateError(
                    f"Run {self.id} is being trained by {holder}. Stop it first: `rlplatform runs stop {self.id}`."
                )
            recover_dirs(self.path, BEST_DIR)
            recover_dirs(self.checkpoints_path)
            with self._record_lock():
                recover_files(self.path)
            yield

    def _record_lock(self) -> AbstractContextManager[bool]:
        return file_lock(self.path / RECORD_LOCK_FILE)

    def is_alive(self) -> bool:
        """Return whether some process holds the run's lock. A run that is ``running`` and not alive was killed."""
        return is_locked(self.path / LOCK_FILE)

    def request(self, action: Action) -> None:
        """Ask the process that trains the run to pause or stop at its next boundary."""
        with self._record_lock():
            write_json(self.path / REQUEST_FILE, {"action": action, "requested_at": datetime.now(UTC).isoformat()})

    def pending_request(self) -> Action | None:
        """Return what was asked of the run and not yet cleared. Costs one failed ``open`` when nothing was."""
        try:
            action = json.loads((self.path / REQUEST_FILE).read_bytes())["action"]
        except FileNotFoundError:
            return None
        return "pause" if action == "pause" else "stop"

    def clear_request(self) -> None:
        """Forget what was asked."""
        with storage_errors(self.path):
            (self.path / REQUEST_FILE).unlink(missing_ok=True)


def list_runs(home: Path) -> list[RunRecord]:
    """Return the records of all runs below ``home``, newest first; unreadable ones are logged and left out."""
    return newest_first(home / RUNS_DIR, lambda path: RunDir(path).read())


def _close(attempts: tuple[Attempt, ...], **how: Any) -> tuple[Attempt, ...]:
    """Return ``attempts`` with the last one ended ``how``, if it has not ended."""
    if not attempts or attempts[-1].reason is not None:
        return attempts
    return (*attempts[:-1], attempts[-1].model_copy(update=how))


def _write_record(path: Path, record: RunRecord) -> None:
    write_text(path, record.model_dump_json(indent=2) + "\n")
