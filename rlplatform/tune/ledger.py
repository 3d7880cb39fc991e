"""The trials of a search as they stand: what people read, and what a search goes on from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.names import TRIALS_DIR


class Ledger:
    """The records of all trials suggested so far."""

    def __init__(self, seeds: tuple[int, ...], records: Iterable[TrialRecord] = ()) -> None:
        """Begin with the records of an earlier attempt, if there was one."""
        self._seeds = seeds
        self._records = {record.trial_id: record for record in records}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, trial_id: str) -> TrialRecord:
        return self._records[trial_id]

    def records(self) -> tuple[TrialRecord, ...]:
        """Return every record, by number."""
        return tuple(self._records.values())

    @property
    def trained_steps(self) -> int:
        """Environment steps spent, over all trials and seeds."""
        return sum(record.trained_steps for record in self._records.values())

    def add(self, number: int, point: Mapping[str, Any]) -> str:
        """Note a new trial; return its id."""
        trial_id = f"{number:04d}"
        self._records[trial_id] = TrialRecord(
            trial_id=trial_id,
            number=number,
            point=dict(point),
            seeds=self._seeds,
            run_dirs=tuple(f"{TRIALS_DIR}/{trial_id}/seed_{seed}" for seed in self._seeds),
        )
        self._changed.add(trial_id)
        return trial_id

    def note(self, trial_id: str, **changes: Any) -> TrialRecord:
        """Change fields of a trial's record."""
        record = self._records[trial_id].model_copy(update=changes)
        self._records[trial_id] = record
        self._changed.add(trial_id)
        return record

    def begin(self, trial_id: str) -> None:
        """Note that a trial trains."""
        started = self._records[trial_id].started or datetime.now(UTC)
        self.note(trial_id, state="running", started=started, reason=None)

    def end(self, trial_id: str, state: str, reason: str) -> None:
        """Note how a trial ended."""
        self.note(trial_id, state=state, ended=datetime.now(UTC), reason=reason)

    def take_changed(self) -> list[TrialRecord]:
        """Return the records that changed since the last call, by number."""
        changed, self._changed = sorted(self._changed), set()
        return [self._records[trial_id] for trial_id in changed]

    @property
    def is_changed(self) -> bool:
        """Whether a record changed since `take_changed`."""
        return bool(self._changed)
