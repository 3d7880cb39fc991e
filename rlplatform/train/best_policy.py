"""`best/`, the policy of the best evaluation so far, and the copy of it in every checkpoint.

A run that goes on from a checkpoint gets that checkpoint's copy back. What `best/` held may be of steps that the run
takes again, and takes otherwise if it was amended in between.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm

from rlplatform import names
from rlplatform.artifacts.atomic import remove_dir, replace_dir, write_json
from rlplatform.artifacts.checkpoint import Checkpoint
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.train.evaluate import EvalResult
from rlplatform.train.policy_folder import policy_step, save_policy


def write_best(run_dir: RunDir, model: BaseAlgorithm, step: int, result: EvalResult) -> None:
    """Make a model's policy the run's best, evaluated at `step` with `result`."""
    with replace_dir(run_dir.best_path) as folder:
        save_policy(model, folder)
        write_json(folder / names.BEST_FILE, {names.STEP: step, **result.metrics()})


def save_best(run_dir: RunDir, folder: Path) -> None:
    """Copy the run's best policy, if it has one, into the folder of a checkpoint."""
    if run_dir.best_path.is_dir():
        shutil.copytree(run_dir.best_path, folder / names.BEST_DIR)


def restore_best(run_dir: RunDir, checkpoint: Checkpoint | None) -> None:
    """Make the run's best policy what it was at a checkpoint; None: at the beginning, when there was none."""
    best, kept = run_dir.best_path, None if checkpoint is None else checkpoint.path / names.BEST_DIR
    if checkpoint is not None and best.is_dir() and (policy_step(best) or 0) <= checkpoint.manifest.step:
        return
    if kept is not None and kept.is_dir():
        with replace_dir(best) as folder:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
    elif best.is_dir():
        remove_dir(best)
