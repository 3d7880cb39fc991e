"""`rlplatform jobs`: hand commands to a cluster, and look after them."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Json, parse_duration
from rlplatform.commands.output import MISSING, duration, next_commands, print_fields, print_json, print_table, say
from rlplatform.errors import JobError

if TYPE_CHECKING:
    from rlplatform.cluster.jobs import Job, Jobs

INTERRUPTED = 130
NO_CODE = "none"
MEANING = {
    0: "done",
    1: "a run failed",
    2: "the request was wrong",
    124: "its deadline was reached",
    130: "stopped with a checkpoint",
    137: "killed, perhaps for want of memory",
}
"""What the exit codes of our commands mean."""

app = typer.Typer(help="Submit jobs to a Ray cluster; list, follow and stop them.", no_args_is_help=True)

Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The cluster's dashboard. Else RAY_ADDRESS, else http://127.0.0.1:8265."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id, or beginning of an id.", show_default=False)]


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="Such as: python jobs/train.py SPEC.yaml", show_default=False),
    ],
    address: Address = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; submitting it again changes nothing.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop it, with checkpoints, after so long: 2h, 90m, 1h30m.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, metavar="N", help="How often it goes on after a failure.")] = 3,
    stop_wait: Annotated[
        str, typer.Option(metavar="TIME", help="How long it may take to write checkpoints when it is stopped.")
    ] = "2m",
    working_dir: Annotated[
        str, typer.Option(metavar="FOLDER", help=f"The code to run in, less what .gitignore names; or `{NO_CODE}`.")
    ] = ".",
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable of the job; may be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its output, and end with its exit code.")] = False,
    as_json: Json = False,
) -> None:
    """Run a command on a cluster; what fails goes on from its last checkpoints.

    A job with this id and the same command is left as it is; with another command it is an error.
    """
    from rlplatform.cluster.job_supervision import Limits
    from rlplatform.cluster.jobs import JobRequest, Jobs, new_job_id

    limits = Limits(
        retries=retries,
        deadline_s=None if deadline is None else parse_duration(deadline, "--deadline"),
        stop_wait_s=parse_duration(stop_wait, "--stop-wait"),
    )
    code = None if working_dir == NO_CODE else _check_code(working_dir)
    request = JobRequest(job_id or new_job_id(), tuple(command), limits, code, _variables(env or []))
    jobs = Jobs(address)
    done = jobs.submit(request)
    if done.new:
        say(f"Job {done.job.id} is submitted to {jobs.address}.")
    else:
        say(f"Job {done.job.id} is there already, {done.job.status}; nothing is submitted.")
    if wait:
        _watch_and_exit(jobs, done.job, as_json)
    if as_json:
        print_json(done.job)
        return
    print(done.job.name)
    _suggest(done.job)


@app.command("list")
def list_(address: Address = None, as_json: Json = False) -> None:
    """List the cluster's jobs, the newest first."""
    from rlplatform.cluster.jobs import Jobs

    jobs = Jobs(address)
    found = jobs.all()
    if as_json:
        print_json(found)
    elif not found:
        say(f"The cluster at {jobs.address} has no jobs.")
    else:
        rows = [
            (job.id, _status(job), _time(job.started_at), duration(job.seconds), " ".join(job.command.split()))
            for job in found
        ]
        print_table(("job", "status", "started", ">took", "command"), rows)


@app.command()
def status(job: JobId, address: Address = None, as_json: Json = False) -> None:
    """Show what is known of a job, and the runs and searches it made as far as they are seen from here."""
    from rlplatform.artifacts.job_runs import runs_of_job
    from rlplatform.artifacts.search_dir import list_searches
    from rlplatform.cluster.jobs import Jobs
    from rlplatform.commands.workspace import home
    from rlplatform.report.tables import run_row

    found = Jobs(address).get(job)
    rows = [run_row(record) for record in runs_of_job(home(), found.name)]
    searches = [record for record in list_searches(home()) if record.job == found.name]
    if as_json:
        print_json({"job": found, "runs": rows, "searches": searches})
        return
    print_fields(
        {
            "job": found.id,
            "status": _status(found),
            "command": found.command,
            "started": _time(found.started_at),
            "took": duration(found.seconds),
            "runs as": found.entrypoint,
        }
        | {f"run {row.run}": f"{row.state}, {row.step:,} of {row.total_timesteps:,} steps" for row in rows}
        | {f"search {record.id}": f"{record.state}, at most {record.n_trials} trials" for record in searches}
    )
    _suggest(found)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    address: Address = None,
) -> None:
    """Print what a job has printed; with --follow, end with its exit code."""
    from rlplatform.cluster.jobs import Jobs

    jobs = Jobs(address)
    found = jobs.get(job)
    if follow:
        _watch_and_exit(jobs, found, as_json=False)
    print(jobs.log(found), end="")


@app.command()
def stop(
    job: JobId,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return before it has stopped.")] = False,
    address: Address = None,
) -> None:
    """Stop a job; its runs write their checkpoints first."""
    from rlplatform.cluster.jobs import Jobs

    jobs = Jobs(address)
    found = jobs.get(job)
    jobs.stop(found)
    if no_wait:
        say(f"Job {found.id} is asked to stop.")
        return
    try:
        found = jobs.wait(found)
    except KeyboardInterrupt:
        say(f"Job {found.id} is asked to stop, and does so by itself.")
        raise typer.Exit(INTERRUPTED) from None
    say(f"Job {found.id} is {found.status}.")
    _suggest(found)


def _watch_and_exit(jobs: Jobs, job: Job, as_json: bool) -> None:
    """Show a job's output until it ends, on stderr if stdout is for JSON, and leave with its exit code."""
    try:
        ended = jobs.follow(job, sys.stderr.write if as_json else sys.stdout.write)
    except KeyboardInterrupt:
        say("", f"Job {job.id} goes on. Stop it by `rlplatform jobs stop {job.name}`.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(ended)
    else:
        say(f"Job {ended.id} is {_status(ended)}.")
        _suggest(ended)
    raise typer.Exit(exit_code(ended))


def exit_code(job: Job) -> int:
    """Return the exit code for how a job ended: its command's, where it ended by itself."""
    if job.exit_code is not None:
        return job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": INTERRUPTED}.get(job.status, 1)


def _status(job: Job) -> str:
    if job.status != "FAILED":
        return job.status
    if job.exit_code is None:
        return f"FAILED: {job.message.splitlines()[0]}" if job.message else "FAILED"
    return f"FAILED, exit code {job.exit_code}: {MEANING.get(job.exit_code, 'its command failed')}"


def _suggest(job: Job) -> None:
    """Say what can be typed next."""
    commands = [(f"rlplatform jobs logs {job.name}" + ("" if job.ended else " --follow"), "read what it prints")]
    if not job.ended:
        commands.append((f"rlplatform jobs stop {job.name}", "stop it with checkpoints"))
    next_commands((f"rlplatform jobs status {job.name}", "see how it is, and its runs"), *commands)


def _check_code(working_dir: str) -> str:
    if "://" not in working_dir and not Path(working_dir).is_dir():
        raise JobError(
            f"`--working-dir` must be a folder, the address of an archive, or `{NO_CODE}`, got {working_dir!r}."
        )
    return working_dir


def _variables(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[0].isidentifier() or "=" not in pair:
            raise JobError(f"`--env` must be NAME=VALUE, got {pair!r}. Write --env RLPLATFORM_HOME=/shared/rlplatform.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _time(moment: datetime | None) -> str:
    return MISSING if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
