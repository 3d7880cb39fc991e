"""The runs of a job: a command that its job starts again goes on with what it made before.

Within a job, a spec with its name and seed stands for one run, however often it is asked for.
"""

from __future__ import annotations

from pathlib import Path

from rlplatform.artifacts.provenance import job_id
from rlplatform.artifacts.run_dir import RunDir, list_runs
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.names import RUNS_DIR
from rlplatform.specs.run import RunSpec


def runs_of_job(home: Path, job: str) -> list[RunRecord]:
    """Return the records of the runs that a job has made, in the order in which it made them."""
    return [record for record in reversed(list_runs(home)) if record.job == job]


def run_of_this_job(home: Path, spec: RunSpec) -> RunDir | None:
    """Return the run of a spec that this process's job made before; None if it made none, or outside a job.

    Args:
        home: RLPLATFORM_HOME.
        spec: What to train, with every ``auto`` resolved, as it was before anybody amended the run.
    """
    job = job_id()
    if job is None:
        return None
    wanted = (spec.title, spec.training_digest())
    for record in runs_of_job(home, job):
        asked_for = record.amendments[0].old_digest if record.amendments else record.spec_digest
        if (record.name, asked_for) == wanted:
            return RunDir(home / RUNS_DIR / record.id)
    return None
