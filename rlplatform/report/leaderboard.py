"""The trials of a search from best to worst, as rows, CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from rlplatform import names
from rlplatform.artifacts.atomic import write_json
from rlplatform.artifacts.jsonl import read_jsonl
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.report.csv_table import write_csv
from rlplatform.report.statistics import Estimate, interquartile_mean
from rlplatform.specs.search import ObjectiveSpec


@dataclass(frozen=True)
class LeaderboardRow:
    """One trial."""

    rank: int | None
    """1 is the best; None for trials without a value."""
    trial: str
    number: int
    state: str
    value: float | None
    """What the objective compares trials by."""
    low: float | None
    """Lower end of the value's 95 % bootstrap interval over the seeds; None for one seed."""
    high: float | None
    seeds: int
    step: int
    """Environment steps of each seed."""
    trained_steps: int
    """Environment steps of all seeds together."""
    wall_s: float | None
    """Seconds from the trial's start to its end, or until now; None before it started."""
    point: dict[str, JsonValue]
    """Its parameters, as they are now."""
    reason: str | None
    runs: tuple[str, ...]
    """Ids of its runs, one for each seed, as `rlplatform evaluate` takes them."""


def leaderboard(search: SearchDir) -> list[LeaderboardRow]:
    """Return the trials of a search, those with a value first, from best to worst.

    Raises:
        StorageError: The search cannot be read.
    """
    objective = search.record.objective
    sign = 1.0 if objective.mode == "max" else -1.0
    trials = search.trials()
    scored = [(sign * score, trial) for trial in trials if (score := trial.score(objective)) is not None]
    # As `best_trial` decides: of equal ones the one that trained less, then the earlier one.
    scored.sort(key=lambda pair: (-pair[0], pair[1].step, pair[1].number))
    ranked = [trial for _, trial in scored]
    numbers = {trial.number for trial in ranked}
    rest = [trial for trial in trials if trial.number not in numbers]
    return [_row(search, trial, rank, objective) for rank, trial in enumerate(ranked, 1)] + [
        _row(search, trial, None, objective) for trial in rest
    ]


def write_leaderboard(rows: Sequence[LeaderboardRow], folder: Path) -> list[Path]:
    """Write leaderboard.csv, with one column for each parameter, and leaderboard.json, and return both.

    Raises:
        StorageError: They cannot be written.
    """
    table = folder / names.LEADERBOARD_CSV_FILE
    write_csv(table, [_flat(row) for row in rows])
    document = folder / names.LEADERBOARD_JSON_FILE
    write_json(document, [asdict(row) for row in rows])
    return [table, document]


def value_curve(runs: Sequence[RunDir], objective: ObjectiveSpec) -> dict[int, tuple[float, ...]]:
    """Return what each seed of a trial evaluated to, at every step at which all of them did.

    Args:
        runs: The trial's runs.
        objective: Whose metric is meant.

    Raises:
        StorageError: An evaluations.jsonl is damaged.
    """
    curves = [evaluations(run, objective.metric) for run in runs]
    steps = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {step: tuple(curve[step] for curve in curves) for step in sorted(steps)}


def evaluations(run: RunDir, metric: str) -> dict[int, float]:
    """Return what a run evaluated to while it trained, by environment step; if never, its final evaluation.

    Args:
        run: The run.
        metric: A key such as `eval/return_mean`.

    Raises:
        StorageError: Its evaluations.jsonl is damaged.
    """
    key = metric.rpartition("/")[2]  # evaluations.jsonl has `return_mean` for eval/return_mean
    records = [record for record in read_jsonl(run.path / names.EVALUATIONS_FILE) if _is_number(record.get(key))]
    chosen = [record for record in records if record["purpose"] == "evaluation"] or records
    return {int(record[names.STEP]): float(record[key]) for record in chosen}


def _row(search: SearchDir, trial: TrialRecord, rank: int | None, objective: ObjectiveSpec) -> LeaderboardRow:
    runs = search.runs(trial)
    score = trial.score(objective)
    spread = None if score is None or len(runs) < 2 else _spread(value_curve(runs, objective), score)
    return LeaderboardRow(
        rank=rank,
        trial=trial.trial_id,
        number=trial.number,
        state=trial.state,
        value=score,
        low=None if spread is None else spread.low,
        high=None if spread is None else spread.high,
        seeds=len(trial.seeds),
        step=trial.step,
        trained_steps=trial.trained_steps,
        wall_s=_wall_seconds(trial),
        point=dict(trial.point),
        reason=trial.reason,
        runs=tuple(run.id for run in runs),
    )


def _spread(curve: Mapping[int, Sequence[float]], score: float) -> Estimate | None:
    """Return the interval of the evaluation that the score comes from; None when it is no longer on disk."""
    estimates = (interquartile_mean(values) for values in reversed(list(curve.values())))
    return next((one for one in estimates if np.isclose(one.value, score, rtol=1e-9, atol=1e-9)), None)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wall_seconds(trial: TrialRecord) -> float | None:
    if trial.started is None:
        return None
    return ((trial.ended or datetime.now(UTC)) - trial.started).total_seconds()


def _flat(row: LeaderboardRow) -> dict[str, object]:
    """Return a row with one column for each parameter instead of the point."""
    flat: dict[str, object] = {}
    for name, value in asdict(row).items():
        if name == "point":
            flat |= row.point
        else:
            flat[name] = " ".join(row.runs) if name == "runs" else value
    return flat
