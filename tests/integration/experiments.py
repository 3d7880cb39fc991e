"""A tiny experiment, and what must hold of its metrics whatever was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir

TINY: dict[str, Any] = {
    "algorithm": "PPO",
    "environment": "CartPole-v1",
    "hyperparameters": {
        "n_steps": 64,
        "batch_size": 64,
        "n_epochs": 1,
        "policy_kwargs": {"net_arch": [16]},
        "n_envs": 2,
    },
    "spec": {
        "evaluation": {"every_steps": None, "final_episodes": 0},
        "checkpoint": {"every_steps": 512},
        "tracking": {"log_every_steps": 128, "tensorboard": False, "csv": False},
        "resources": {"cpus": 0.25},
    },
}


def steps_of(run: RunDir) -> list[int]:
    """Return the steps at which a run's training was logged, which must be evenly spaced."""
    records = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [record[names.STEP] for record in records if "train/loss" in record or "train/n_updates" in record]


def assert_without_gaps(home: Path) -> None:
    """Check that each run's metrics go on where they were, however often it was killed."""
    runs = [RunDir(path.parent) for path in home.glob(f"{names.RUNS_DIR}/*/{names.RUN_FILE}")]
    assert runs
    for run in runs:
        steps = steps_of(run)
        assert steps == list(range(steps[0], steps[-1] + 1, 128)), run.id
