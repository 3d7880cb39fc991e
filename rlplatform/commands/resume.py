"""`rlplatform resume`: go on with a run, exactly where it was, or under a recorded amendment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Address, Json, Overrides
from rlplatform.commands.output import say

if TYPE_CHECKING:
    from rlplatform.artifacts.run_dir import RunDir


def resume(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or its folder.", show_default=False)],
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait-for-resources", help="Wait when the cluster is too small, instead of giving up.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, paused, killed or failed, from its newest undamaged checkpoint.

    With --set the run is amended first: its budget, evaluation, stopping rules, and options that a live model takes.
    """
    from rlplatform.artifacts.run_dir import RunDir
    from rlplatform.commands.training import Place, report_and_exit, train_on
    from rlplatform.commands.workspace import home, start_logs

    run_dir = RunDir.open(home(), run)
    start_logs()
    if overrides:
        _amend(run_dir, overrides)
    report_and_exit(train_on([run_dir], Place(local, address, wait_for_resources=wait)), as_json)


def _amend(run_dir: RunDir, overrides: list[str]) -> None:
    """Change the run's spec, and say what changed and what that means for its schedules."""
    from rlplatform.specs.load import load_run_spec
    from rlplatform.train.amend import amend_run

    for change in amend_run(run_dir, load_run_spec(run_dir.spec_path, overrides=overrides, environ={}).spec):
        say(f"Amended {change}")
    amendments = run_dir.read().amendments
    if amendments and amendments[-1].note:
        say(f"Note: {amendments[-1].note}.")
