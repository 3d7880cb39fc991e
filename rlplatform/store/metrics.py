"""Reading a run's metrics: a range of steps, some of the keys, a bounded number of records, and what is still to come.

They are read where the trainer writes them, metrics.jsonl in the run's folder: resuming cuts that file back, and a copy
in the database would have to follow.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlplatform import names
from rlplatform.artifacts.atomic import storage_errors
from rlplatform.artifacts.jsonl import read_jsonl
from rlplatform.errors import SpecError, StorageError

Record = dict[str, Any]
"""A step and the values measured at it; None where a value was not finite."""

MIN_POINTS = 4
_HEADLINES = (names.ROLLOUT_RETURN_MEAN, names.EVAL_RETURN_MEAN)


def read_metrics(
    run_path: Path,
    keys: Collection[str] | None = None,
    start: int | None = None,
    end: int | None = None,
    max_points: int | None = None,
    file: str = names.METRICS_FILE,
) -> list[Record]:
    """Return what a run has measured so far, one record for each step; nothing before it has begun.

    Args:
        run_path: The run's folder.
        keys: Keep these, and records that have at least one of them. None: everything.
        start: Least environment step.
        end: Greatest environment step.
        max_points: Most records, at least `MIN_POINTS`; see `thin`. None: all of them.
        file: Which of the run's files of records to read.

    Raises:
        SpecError: `max_points` is too small.
        StorageError: The file is damaged or cannot be read.
    """
    if max_points is not None and max_points < MIN_POINTS:
        raise SpecError(f"`max_points` must be at least {MIN_POINTS}, got {max_points}.")
    records: list[Record] = []
    for record in read_jsonl(run_path / file):
        step = _step(record)
        if end is not None and step > end:
            break
        if (start is not None and step < start) or not (chosen := _choose(record, keys)):
            continue
        if records and records[-1][names.STEP] == step:  # An evaluation has a line of its own.
            records[-1] |= chosen
        else:
            records.append(chosen)
    return records if max_points is None else thin(records, max_points, keys)


def thin(records: Sequence[Record], max_points: int, keys: Collection[str] | None = None) -> list[Record]:
    """Return at most `max_points` of the records: first and last, and the lowest and highest of each stretch between.

    So a curve keeps its spikes, which it would not if every n-th record were taken, or means.

    Args:
        records: By ascending step.
        max_points: At least `MIN_POINTS`.
        keys: Whose extremes are kept, most important first. None: those of the returns in training and evaluation.
    """
    if len(records) <= max_points:
        return list(records)
    leads = list(keys or _HEADLINES)[: (max_points - 2) // 2]
    n_stretches = (max_points - 2) // (2 * len(leads))
    last = len(records) - 1
    kept = {0, last}
    for index in range(n_stretches):
        # The inner records, 1 to last - 1, in stretches as equal as can be.
        low, high = (1 + (last - 1) * edge // n_stretches for edge in (index, index + 1))
        for lead in leads:
            kept |= _extremes(records, range(low, high), lead)
    return [records[index] for index in sorted(kept)]


def _extremes(records: Sequence[Record], stretch: range, key: str) -> set[int]:
    measured = [index for index in stretch if _is_number(records[index].get(key))]
    if not measured:
        return set()
    return {pick(measured, key=lambda index: records[index][key]) for pick in (min, max)}


class Mark(NamedTuple):
    """A place in a run's records that stays the same when the run is resumed and writes some of them again."""

    step: int
    n: int
    """How many records of that step there are up to it."""

    def __str__(self) -> str:
        return f"{self.step}.{self.n}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Read what `str` wrote.

        Raises:
            SpecError: It is nothing of the kind.
        """
        found = re.fullmatch(r"([0-9]{1,18})\.([0-9]{1,9})", text)
        if found is None:
            raise SpecError(f"A place in a stream of metrics must be like '2048.1', got {text[:50]!r}.")
        return cls(int(found[1]), int(found[2]))


BEGINNING = Mark(0, 0)


class Measured(NamedTuple):
    """A record, and the mark to go on from after it."""

    record: Record
    mark: Mark


class MetricsTail:
    """What comes to a run's records from now on; each once, also when the run is resumed from an earlier step."""

    def __init__(
        self,
        run_path: Path,
        keys: Collection[str] | None = None,
        after: Mark = BEGINNING,
        file: str = names.METRICS_FILE,
    ) -> None:
        """Begin at a mark; nothing is read yet.

        Args:
            run_path: The run's folder.
            keys: As `read_metrics`.
            after: The mark of the last record that is known.
            file: As `read_metrics`.
        """
        self._path = run_path / file
        self._keys = keys
        self._known = after
        self._here = BEGINNING
        self._offset = 0
        self._last_line = b""

    def read(self) -> list[Measured]:
        """Return the records that came since the last call.

        Raises:
            StorageError: The file is damaged or cannot be read.
        """
        found = []
        for record in self._records():
            step = _step(record)
            self._here = Mark(step, self._here.n + 1 if step == self._here.step else 1)
            if self._here > self._known:
                self._known = self._here
                if chosen := _choose(record, self._keys):
                    found.append(Measured(chosen, self._here))
        return found

    def _records(self) -> list[Record]:
        if not self._path.exists():
            return []
        with storage_errors(self._path), open(self._path, "rb") as file:
            # A resumed run cuts the file back and writes on: then the line before the mark is another one now.
            file.seek(self._offset - len(self._last_line))
            if file.read(len(self._last_line)) != self._last_line:
                file.seek(0)
                self._offset, self._last_line, self._here = 0, b"", BEGINNING
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # The rest of it is being written.
        lines = whole.splitlines(keepends=True)
        if lines:
            self._offset += len(whole)
            self._last_line = lines[-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise StorageError(f"{self._path} holds a line that is not JSON ({error}). The file is damaged.") from error


async def follow(tail: MetricsTail, ended: Callable[[], bool], *, poll_s: float = 0.5) -> AsyncIterator[Measured]:
    """Yield a run's records as they come, until it has ended and all of them are there.

    Args:
        tail: Where to go on from.
        ended: Returns whether nothing more will come; called from a thread.
        poll_s: Seconds between two looks.

    Raises:
        StorageError: The file is damaged or cannot be read.
    """
    while True:
        over = await asyncio.to_thread(ended)  # Before reading: what came before the end is read after it.
        for measured in await asyncio.to_thread(tail.read):
            yield measured
        if over:
            return
        await asyncio.sleep(poll_s)


def _choose(record: Mapping[str, Any], keys: Collection[str] | None) -> Record:
    if keys is None:
        return dict(record)
    values = {key: record[key] for key in keys if key in record}
    return {names.STEP: record[names.STEP], **values} if values else {}


def _step(record: Mapping[str, Any]) -> int:
    return int(record.get(names.STEP, 0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
