"""`rlplatform resume`: go on with a run, exactly where it was, or under a recorded amendment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Address, Json, Overrides, Runs
from rlplatform.commands.output import say

if TYPE_CHECKING:
    from rlplatform.artifacts.run_dir import RunDir


def resume(
    runs: Runs,
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait-for-resources", help="Wait when the cluster is too small, instead of giving up.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Go on with runs that were stopped, paused, killed or failed, from their newest undamaged checkpoints.

    With --set they are amended first: budget, evaluation, stopping rules, and options that a live model takes.
    """
    from rlplatform.artifacts.mirror import open_run
    from rlplatform.commands.training import Place, report_and_exit, train_on
    from rlplatform.commands.workspace import home, start_logs

    found = [open_run(home(), run) for run in runs]
    start_logs()
    for run_dir in found if overrides else ():
        _amend(run_dir, overrides or [])
    report_and_exit(train_on(found, Place(local, address, wait_for_resources=wait)), as_json)


def _amend(run_dir: RunDir, overrides: list[str]) -> None:
    """Change the run's spec, and say what changed and what that means for its schedules."""
    from rlplatform.specs.load import load_run_spec
    from rlplatform.train.amend import amend_run

    changes = amend_run(run_dir, load_run_spec(run_dir.spec_path, overrides=overrides, environ={}).spec)
    if not changes:
        say(f"{run_dir.id} is so already; nothing is amended.")
        return
    for change in changes:
        say(f"Amended {run_dir.id}: {change}")
    if note := run_dir.read().amendments[-1].note:
        say(f"Note: {note}.")
