"""Rows for people and programs, from the records of runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from rlplatform.artifacts.run_record import RunRecord
from rlplatform.report.statistics import Estimate, interquartile_mean


@dataclass(frozen=True)
class RunRow:
    """One run in a table."""

    run: str
    name: str
    algorithm: str
    env: str
    seed: int
    state: str
    step: int
    total_timesteps: int
    n_episodes: int | None
    """Episodes of the final evaluation; None before there is one."""
    return_mean: float | None
    """Mean return of the final evaluation."""
    return_ci_low: float | None
    return_ci_high: float | None
    best_return: float | None
    """Highest mean return among the evaluations during training."""
    training_return: float | None
    """Mean return of the latest training episodes."""
    wall_s: float
    """Seconds of all attempts; of one that was killed, until its last sign of life."""
    created_at: datetime
    reason: str | None


@dataclass(frozen=True)
class GroupRow:
    """Runs that differ in the seed only."""

    name: str
    seeds: int
    """Seeds with a final evaluation."""
    iqm: Estimate
    """Interquartile mean of the final returns, with its 95 % bootstrap interval over seeds."""
    best_run: str
    """The run to publish: highest best evaluation during training, so that the final evaluation is not what chooses."""


def run_row(record: RunRecord) -> RunRow:
    """Return the row of a run."""
    result = record.result or {}
    final = result.get("final")
    final = final if isinstance(final, dict) else {}
    n_episodes = _number(final.get("n_episodes"))
    return RunRow(
        run=record.id,
        name=record.name,
        algorithm=record.algorithm,
        env=record.env,
        seed=record.seed,
        state=record.state,
        step=max(record.progress.step, int(_number(result.get("step")) or 0)),
        total_timesteps=record.progress.total,
        n_episodes=None if n_episodes is None else int(n_episodes),
        return_mean=_number(final.get("return_mean")),
        return_ci_low=_number(final.get("return_ci_low")),
        return_ci_high=_number(final.get("return_ci_high")),
        best_return=_number(result.get("best_return")),
        training_return=record.progress.episode_return,
        wall_s=sum(_attempt_seconds(record)),
        created_at=record.created_at,
        reason=record.reason,
    )


def group_rows(rows: Sequence[RunRow]) -> list[GroupRow]:
    """Return one row for each set of runs with the same name, algorithm and environment that have final evaluations."""
    groups: dict[tuple[str, str, str], list[RunRow]] = {}
    for row in rows:
        if row.return_mean is not None:
            groups.setdefault((row.name, row.algorithm, row.env), []).append(row)
    return [
        GroupRow(name, len(group), interquartile_mean([_known(row.return_mean) for row in group]), best_of(group).run)
        for (name, _, _), group in groups.items()
    ]


def best_of(rows: Sequence[RunRow]) -> RunRow:
    """Return the run with the highest best evaluation; of equal ones the one that also ended highest."""
    return max(rows, key=lambda row: (_known(row.best_return), _known(row.return_mean)))


def _known(value: float | None) -> float:
    return float("-inf") if value is None else value


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _attempt_seconds(record: RunRecord) -> Iterable[float]:
    for index, attempt in enumerate(record.attempts):
        last = index == len(record.attempts) - 1
        end = attempt.ended_at or (record.progress.updated_at if last else None) or attempt.started_at
        yield max(0.0, (end - attempt.started_at).total_seconds())
