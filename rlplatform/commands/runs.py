"""`rlplatform runs`: look at runs, and ask things of those that are training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlplatform.commands.options import Json, Runs, check_state
from rlplatform.commands.output import (
    MISSING,
    duration,
    next_commands,
    number,
    print_fields,
    print_json,
    print_table,
    say,
    size,
)
from rlplatform.commands.resume import resume

if TYPE_CHECKING:
    from rlplatform.artifacts.run_dir import RunDir

app = typer.Typer(help="List, show, pause, resume, stop and prune runs.", no_args_is_help=True)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only runs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List the runs under RLPLATFORM_HOME, the newest first."""
    from rlplatform.artifacts.run_dir import RunDir, list_runs
    from rlplatform.commands.workspace import home
    from rlplatform.names import RUNS_DIR
    from rlplatform.report.tables import run_row

    if state is not None:
        check_state(state)
    rows = [run_row(record) for record in list_runs(home()) if state in (None, record.state)][:limit]
    if as_json:
        print_json(rows)
        return
    if not rows:
        say(f"No runs in {home() / RUNS_DIR}{f' are {state}' if state else ''}.")
        next_commands(("rlplatform train configs/train/cartpole_ppo.yaml", "train one"))
        return
    print_table(
        ("run", "state", ">steps", ">final return", ">best evaluation", ">training return", ">wall time"),
        [
            (
                row.run,
                _state(RunDir(home() / RUNS_DIR / row.run), row.state),
                f"{row.step:,} of {row.total_timesteps:,}",
                number(row.return_mean),
                number(row.best_return),
                number(row.training_return),
                duration(row.wall_s),
            )
            for row in rows
        ],
    )


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, beginning of an id, or folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show all that is known of one run."""
    from rlplatform.artifacts.checkpoint import CheckpointStore
    from rlplatform.artifacts.run_dir import RunDir
    from rlplatform.commands.workspace import home
    from rlplatform.report.tables import run_row

    run_dir = RunDir.open(home(), run)
    record = run_dir.read()
    checkpoints = CheckpointStore(run_dir.checkpoints_path, keep_last=1).all()
    if as_json:
        print_json({**record.model_dump(mode="json"), "checkpoints": [one.manifest for one in checkpoints]})
        return
    row = run_row(record)
    lines = {
        "run": record.id,
        "folder": str(run_dir.path),
        "state": _state(run_dir, record.state) + (f": {record.reason}" if record.reason else ""),
        "trains": f"{record.algorithm} on {record.env}, seed {record.seed}",
        "environments": f"{record.env_backend}, restored by {record.env_state}",
        "steps": f"{row.step:,} of {row.total_timesteps:,}",
        "final return": _final_return(row.return_mean, row.return_ci_low, row.return_ci_high, row.n_episodes),
        "best evaluation": number(row.best_return),
        "wall time": f"{duration(row.wall_s)} in {len(record.attempts)} attempts, {record.retries} retries",
        "command": record.command,
    }
    lines |= {
        f"amended at {amendment.step:,}": ", ".join(
            f"{key}: {old} → {new}" for key, (old, new) in amendment.changes.items()
        )
        for amendment in record.amendments
    }
    for one in checkpoints:
        n_bytes = sum(file.bytes for file in one.manifest.files.values())
        lines[one.path.name] = f"{one.manifest.kind} checkpoint, {size(n_bytes)}"
    print_fields(lines)
    commands = [(f"rlplatform evaluate {record.id}", "measure its best policy")] if checkpoints else []
    if record.state != "completed":
        commands.append((f"rlplatform resume {record.id}", "go on with it"))
    next_commands(*commands, (f"tensorboard --logdir {shlex.quote(str(run_dir.tb_path))}", "look at its curves"))


@app.command()
def pause(runs: Runs) -> None:
    """Ask training runs to pause at their next rollout boundary, with a checkpoint."""
    _request(runs, "pause")


@app.command()
def stop(runs: Runs) -> None:
    """Ask training runs to stop at their next rollout boundary, with a checkpoint."""
    _request(runs, "stop")


app.command("resume")(resume)


@app.command()
def prune(
    older_than: Annotated[float, typer.Option(min=0, metavar="DAYS", help="Only runs that ended so long ago.")] = 0.0,
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="Keep the newest N runs of each name.")] = 0,
    states: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only runs in this state; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed, and why.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove runs that have ended, except those that models were published from."""
    from datetime import UTC, datetime, timedelta

    from rlplatform.artifacts.prune import PrunePolicy, folder_bytes, plan_prune, remove_runs
    from rlplatform.artifacts.run_dir import RunDir, list_runs
    from rlplatform.artifacts.run_state import FINISHED
    from rlplatform.commands.publishing import published_runs
    from rlplatform.commands.workspace import home
    from rlplatform.names import RUNS_DIR

    chosen = frozenset(check_state(state) for state in states) if states else FINISHED
    records = list_runs(home())
    folders = {record.id: RunDir(home() / RUNS_DIR / record.id) for record in records}
    decisions = plan_prune(
        records,
        PrunePolicy(chosen, timedelta(days=older_than), keep),
        now=datetime.now(UTC),
        alive=[run_id for run_id, run_dir in folders.items() if run_dir.is_alive()],
        published=published_runs(),
    )
    freed = sum(folder_bytes(folders[one.run_id].path) for one in decisions if one.remove)
    if as_json:
        print_json({"dry_run": dry_run, "bytes": freed, "runs": decisions})
    else:
        rows = [(one.run_id, "remove" if one.remove else "keep", one.reason) for one in decisions]
        print_table(("run", "decision", "because"), rows)
    n_removed = sum(one.remove for one in decisions)
    if not n_removed:
        say("Nothing is to be removed.")
        return
    if dry_run:
        say(f"{n_removed} runs would be removed, {size(freed)} freed. Without --dry-run they are.")
        return
    if not yes:
        typer.confirm(f"Remove {n_removed} runs and free {size(freed)}? This cannot be undone", abort=True, err=True)
    remove_runs(home(), decisions)
    say(f"Removed {n_removed} runs, freed {size(freed)}.")


def _request(runs: list[str], action: Literal["pause", "stop"]) -> None:
    from rlplatform.artifacts.run_dir import RunDir
    from rlplatform.commands.workspace import home
    from rlplatform.errors import RunStateError

    found = [RunDir.open(home(), run) for run in runs]
    for run_dir in found:
        record = run_dir.read()
        if record.state != "queued" and not run_dir.is_alive():
            more = " --set budget.total_timesteps=…" if record.state == "completed" else ""
            raise RunStateError(
                f"Run {run_dir.id} is {_state(run_dir, record.state)}, so there is nothing to {action}. "
                f"Go on with it by `rlplatform resume {run_dir.id}{more}`."
            )
    past = {"pause": "pauses", "stop": "stops"}[action]
    for run_dir in found:
        run_dir.request(action)
        say(f"{run_dir.id} {past} at its next rollout boundary.")
    next_commands(*((f"rlplatform resume {run_dir.id}", "go on later") for run_dir in found))


def _state(run_dir: RunDir, state: str) -> str:
    return f"{state}, but its process is gone" if state == "running" and not run_dir.is_alive() else state


def _final_return(mean: float | None, low: float | None, high: float | None, n_episodes: int | None) -> str:
    if mean is None or low is None or high is None:
        return MISSING
    return f"{mean:,.1f} over {n_episodes} episodes, 95 % CI [{low:,.1f}, {high:,.1f}]"
