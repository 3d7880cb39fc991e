"""Fine-tuning: find the policy that a run starts from, and hand it to a fresh session."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3.common.save_util import load_from_zip_file

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.specs.run import InitSpec
from rlplatform.train.compare import newest_policy
from rlplatform.train.normalizer import Normalizer
from rlplatform.train.session import TrainingSession


def start_from_policy(session: TrainingSession, init: InitSpec, home: Path) -> None:
    """Give the policy that `init` names to a session at step 0.

    Raises:
        RunNotFound: No such run.
        CheckpointError: The run has no such policy, or its network does not fit.
    """
    folder = find_policy(init.run, init.which, home)
    # Only the tensors: whether they fit is for the session to tell, whatever algorithm they are of.
    _, parameters, _ = load_from_zip_file(folder / names.MODEL_FILE, load_data=False, device=session.model.device)
    session.start_from(parameters, Normalizer.load(folder))


def find_policy(run: str, which: str, home: Path) -> Path:
    """Return the policy folder that a reference means.

    Args:
        run: A run's id, or the path of a run, a checkpoint or a policy folder.
        which: `best` or `last`; of a run without evaluations, `best` is the last.
        home: Where runs are looked up.

    Raises:
        RunNotFound: No such run.
        CheckpointError: The run has no policy yet.
    """
    path = Path(run)
    if (path / names.MODEL_FILE).is_file():
        return path
    run_dir = RunDir.open(home, run)
    if which == "best" and (run_dir.best_path / names.MODEL_FILE).is_file():
        return run_dir.best_path
    return newest_policy(run_dir)
