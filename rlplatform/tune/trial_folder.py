"""A trial on the move: everything it needs to go on, in one folder, for another process, node or trial.

    <folder>/trial.json
    <folder>/seed_0/{spec.yaml, metrics.jsonl, evaluations.jsonl, checkpoints/step_000000012288/}

Population based training lets a trial become a copy of a better one: its runs then have the other's history, and a
recorded amendment that says what changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlplatform import names
from rlplatform.artifacts.atomic import replace_dir, write_json, write_text
from rlplatform.artifacts.checkpoint import read_checkpoint
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_record import Amendment
from rlplatform.specs.load import dump_spec, load_run_spec
from rlplatform.specs.run import RunSpec
from rlplatform.train.amend import check_amendment
from rlplatform.train.trainer import Trainer

_HISTORY = (names.METRICS_FILE, names.EVALUATIONS_FILE, names.SPEC_FILE)


@dataclass(frozen=True)
class TrialNote:
    """What a trial's folder says of it."""

    trial_id: str
    generation: int = 0
    """How often it took over another trial's networks."""
    step: int = 0
    """Environment steps of each seed when the note was written."""
    adopted: str = ""
    """What it took over last, as `origin` tells it."""

    def origin(self, point: dict[str, Any]) -> str:
        """Return what tells one takeover from another: who is taken over, at which moment, and by which point."""
        digest = hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.trial_id}.{self.generation}@{self.step}#{digest}"


def read_note(folder: Path) -> TrialNote:
    """Return the note in a trial's folder; of one without, that of a trial that never moved."""
    try:
        return TrialNote(**json.loads((folder / names.TRIAL_FILE).read_bytes()))
    except FileNotFoundError:
        return TrialNote(folder.name)


def write_note(folder: Path, note: TrialNote) -> None:
    """Write the note into a trial's folder."""
    write_json(folder / names.TRIAL_FILE, asdict(note))


def save_seed(trainer: Trainer, folder: Path) -> None:
    """Copy what a run needs to go on into a new folder; it writes a checkpoint of this boundary first."""
    # Where environments cannot be saved they are rebuilt here, and the run goes on with the new ones too.
    checkpoint = trainer.checkpoint("scheduled" if trainer.session.rebuilds_envs else "stop")
    run = trainer.run_dir
    shutil.copytree(checkpoint.path, folder / names.CHECKPOINTS_DIR / checkpoint.path.name)
    for name in _HISTORY:
        shutil.copy2(run.path / name, folder / name)


def adopt_seed(run: RunDir, saved: Path, spec: RunSpec, note: TrialNote) -> None:
    """Make a run that nobody trains go on from what `save_seed` wrote, under a spec of its own.

    Args:
        run: Becomes a copy of the saved one; a kill at any moment leaves it as it was or as it will be.
        saved: The saved run's folder.
        spec: What the run follows from now on.
        note: Whose the saved run is.

    Raises:
        SpecError: The specs differ in something that is fixed once a run has begun.
    """
    old = load_run_spec(saved / names.SPEC_FILE, environ={}).spec
    found = check_amendment(old, spec)
    checkpoint = read_checkpoint(next((saved / names.CHECKPOINTS_DIR).glob("step_*")))
    amendment = Amendment(
        at=datetime.now(UTC),
        step=checkpoint.manifest.step,
        changes={change.field: (change.old, change.new) for change in found},
        old_digest=checkpoint.manifest.spec_digest,
        note=f"took over the networks of trial {note.trial_id} at step {checkpoint.manifest.step}",
    )
    record = run.read()
    record = record.model_copy(
        update={"amendments": (*record.amendments, amendment), "spec_digest": spec.training_digest()}
    )
    with replace_dir(run.path) as folder:
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        if run.tb_path.exists():
            shutil.copytree(run.tb_path, folder / names.TENSORBOARD_DIR)
        write_text(folder / names.SPEC_FILE, dump_spec(spec))
        write_text(folder / names.RUN_FILE, record.model_dump_json(indent=2) + "\n")
