"""Searches on disk for tests of reports: records and evaluations as a search would leave them, without training."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlplatform import names
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.artifacts.search_record import TrialRecord, TrialState
from rlplatform.specs.search import SearchSpec
from tests.unit.report.records import NOON

SPACE = {
    "algorithm.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
    "algorithm.n_epochs": {"type": "int", "low": 1, "high": 8},
    "env.n_envs": {"type": "choice", "values": [1, 2]},
}


def make_search(home: Path, *, seeds: tuple[int, ...] = (0,), **fields: Any) -> SearchDir:
    """Make a search without trials."""
    spec = {
        "run": {
            "algorithm": {"name": "ppo", "n_steps": 64, "batch_size": 64},
            "env": {"id": "CartPole-v1", "backend": "sync"},
            "budget": {"total_timesteps": 256},
            "evaluation": {"every_steps": 128, "n_episodes": 2},
        },
        "space": SPACE,
        "objective": {"seeds": list(seeds), "of": "best"},
        "name": "small",
    }
    return SearchDir.create(home, SearchSpec.model_validate({**spec, **fields}))


def add_trial(
    search: SearchDir,
    number: int,
    point: dict[str, Any],
    returns: list[list[float]],
    state: TrialState = "completed",
) -> TrialRecord:
    """Add a trial with the evaluations of each seed, 128 steps apart; its value is their mean."""
    trial_id, seeds = f"{number:04}", search.record.seeds
    folders = [f"{names.TRIALS_DIR}/{trial_id}/seed_{seed}" for seed in seeds]
    for folder, values in zip(folders, returns, strict=True):
        (search.path / folder).mkdir(parents=True)
        lines = [
            {"step": 128 * at, "purpose": "evaluation", "return_mean": value} for at, value in enumerate(values, 1)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (search.path / folder / names.EVALUATIONS_FILE).write_text(text)
    means = [sum(step) / len(step) for step in zip(*returns, strict=True)]
    record = TrialRecord(
        trial_id=trial_id,
        number=number,
        point=point,
        seeds=seeds,
        state=state,
        step=128 * len(means),
        trained_steps=128 * len(means) * len(seeds),
        value=means[-1] if means else None,
        best_value=max(means, default=None),
        started=NOON,
        ended=NOON + timedelta(seconds=30),
        reason="the scheduler stopped it" if state == "stopped" else None,
        run_dirs=tuple(folders),
    )
    search.append_trials([record])
    return record


def add_trials(search: SearchDir, n: int) -> None:
    """Add trials whose value grows with the learning rate alone."""
    for number in range(n):
        point = {
            "algorithm.learning_rate": 10.0 ** (-5 + 3 * number / n),
            "algorithm.n_epochs": 1 + number % 3,
            "env.n_envs": 1 + number % 2,
        }
        add_trial(search, number, point, [[10.0, 10.0 + number] for _ in search.record.seeds])
