"""Comparisons: several specs, each trained with the same seeds, and what the results say of one against the other.

A comparison is a folder below ``comparisons/``: comparison.json says which run belongs to which spec, and is written
before anything trains, so that a kill loses nothing; results.json, groups.csv and runs.csv are what came out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rlplatform.artifacts.atomic import storage_errors, write_json
from rlplatform.artifacts.listing import find_folder, new_name
from rlplatform.artifacts.provenance import command_line, job_id
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import StorageError
from rlplatform.names import COMPARISON_FILE, COMPARISONS_DIR, GROUPS_CSV_FILE, RESULTS_FILE, RUNS_CSV_FILE
from rlplatform.report.csv_table import write_csv
from rlplatform.report.statistics import Estimate, interquartile_mean, probability_of_improvement
from rlplatform.report.tables import RunRow, run_row

MAX_LABELS_IN_ID = 3


@dataclass(frozen=True)
class GroupResult:
    """What the runs of one spec came to, by their final evaluations."""

    label: str
    algorithm: str
    env: str
    seeds: int
    """Seeds with a final evaluation."""
    asked: int
    """Seeds that were asked for."""
    iqm: Estimate | None
    """Interquartile mean over seeds, with its 95 % bootstrap interval; None while no seed has a final evaluation."""
    mean: float | None
    std: float | None
    """Standard deviation over seeds (of a sample, n - 1); None for fewer than two."""
    improvement: Estimate | None
    """Probability that a run of this spec ends higher than a run of the first one; None for the first itself."""
    step: int
    """Environment steps of all its runs."""
    wall_s: float
    """Seconds of all its runs."""


@dataclass(frozen=True)
class Comparison:
    """A comparison on disk."""

    path: Path
    groups: dict[str, tuple[RunDir, ...]]
    """The runs of each spec, by its label; the first is what the others are measured against."""

    @property
    def id(self) -> str:
        """The comparison's id, which is its folder's name."""
        return self.path.name

    @property
    def runs(self) -> list[RunDir]:
        """All runs, group by group."""
        return [run for group in self.groups.values() for run in group]

    @classmethod
    def create(cls, home: Path, groups: Mapping[str, Sequence[RunDir]]) -> Comparison:
        """Make the folder of a new comparison of existing runs.

        Raises:
            StorageError: It cannot be written.
        """
        now = datetime.now(UTC)
        title = "-vs-".join(list(groups)[:MAX_LABELS_IN_ID])
        path = home.absolute() / COMPARISONS_DIR / new_name(title[:80], now)
        with storage_errors(path):
            path.mkdir(parents=True)
        found = cls(path, {label: tuple(runs) for label, runs in groups.items()})
        write_json(
            path / COMPARISON_FILE,
            {
                "format": 1,
                "id": found.id,
                "created_at": now.isoformat(),
                "command": command_line(),
                "job": job_id(),
                "groups": {label: [run.id for run in runs] for label, runs in found.groups.items()},
            },
        )
        return found

    @classmethod
    def open(cls, home: Path, text: str) -> Comparison:
        """Find a comparison by its id, the unique beginning of its id, or the path of its folder.

        Raises:
            RunNotFound: There is no such comparison, several begin so, or a run of it is gone.
            StorageError: Its file is damaged.
        """
        path = Path(text).absolute()
        if not (path / COMPARISON_FILE).is_file():
            path = find_folder(home.absolute() / COMPARISONS_DIR, text, "comparison", "Compare some specs")
        with storage_errors(path):
            content = (path / COMPARISON_FILE).read_bytes()
        try:
            groups = json.loads(content)["groups"]
            found = {str(label): [str(run) for run in runs] for label, runs in groups.items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StorageError(f"{path / COMPARISON_FILE} is damaged ({error}). Compare again.") from error
        return cls(path, {label: tuple(RunDir.open(home, run) for run in runs) for label, runs in found.items()})

    @classmethod
    def of_this_job(cls, home: Path) -> Comparison | None:
        """Return the comparison that this command began when its job ran it before; None if there is none.

        Raises:
            RunNotFound: A run of it is gone.
        """
        job = job_id()
        for path in sorted((home / COMPARISONS_DIR).glob(f"*/{COMPARISON_FILE}")) if job else ():
            found = json.loads(path.read_bytes())
            if (found.get("job"), found.get("command")) == (job, command_line()):
                return cls.open(home, str(path.parent))
        return None

    def rows(self) -> dict[str, list[RunRow]]:
        """Return the row of every run as it is now, by group."""
        return {label: [run_row(run.read()) for run in runs] for label, runs in self.groups.items()}

    def write(self) -> list[GroupResult]:
        """Work out the results as they are now, write them as JSON and CSV, and return them.

        Raises:
            StorageError: They cannot be written.
        """
        rows = self.rows()
        results = compare_groups(rows)
        write_json(
            self.path / RESULTS_FILE,
            {
                "groups": [asdict(result) for result in results],
                "runs": [{"label": label, **_plain(row)} for label, group in rows.items() for row in group],
            },
        )
        write_csv(self.path / GROUPS_CSV_FILE, [_flat(asdict(result)) for result in results])
        write_csv(
            self.path / RUNS_CSV_FILE,
            [{"label": label, **_plain(row)} for label, group in rows.items() for row in group],
        )
        return results


def compare_groups(groups: Mapping[str, Sequence[RunRow]]) -> list[GroupResult]:
    """Return what the runs of each spec came to.

    Runs without a final evaluation are left out of the numbers, but counted in `asked`.

    Args:
        groups: The runs of each spec by its label, at least one each; the first group is the one to improve on.
    """
    finals = {label: [row.return_mean for row in rows if row.return_mean is not None] for label, rows in groups.items()}
    base = next(iter(finals.values()), [])
    return [
        GroupResult(
            label=label,
            algorithm=rows[0].algorithm,
            env=rows[0].env,
            seeds=len(values := finals[label]),
            asked=len(rows),
            iqm=interquartile_mean(values) if values else None,
            mean=float(np.mean(values)) if values else None,
            std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            improvement=probability_of_improvement(values, base) if index and values and base else None,
            step=sum(row.step for row in rows),
            wall_s=sum(row.wall_s for row in rows),
        )
        for index, (label, rows) in enumerate(groups.items())
    ]


def _plain(row: RunRow) -> dict[str, object]:
    return asdict(row) | {"created_at": row.created_at.isoformat()}


def _flat(result: dict[str, object]) -> dict[str, object]:
    """Return a result with each estimate as three columns."""
    flat: dict[str, object] = {}
    for name, value in result.items():
        if name in ("iqm", "improvement"):
            parts = value if isinstance(value, dict) else {}
            flat |= {name: parts.get("value"), f"{name}_low": parts.get("low"), f"{name}_high": parts.get("high")}
        else:
            flat[name] = value
    return flat
