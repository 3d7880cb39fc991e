"""`rlplatform tune`: search a space of specs, from one YAML file to the best spec, and to a published policy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Address, Json, Overrides
from rlplatform.commands.output import next_commands, print_json, say
from rlplatform.errors import SpecError

if TYPE_CHECKING:
    from rlplatform.artifacts.search_dir import SearchDir
    from rlplatform.cluster.runner import RayOptions
    from rlplatform.report.search_report import SearchReport
    from rlplatform.specs.search import SearchSpec
    from rlplatform.tune.progress import SearchResult

INTERRUPTED = 130
SHOWN_TRIALS = 10
"""Trials of the table at the end."""


def tune(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML file of the search.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a search that was stopped or killed.")
    ] = None,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials at most (budget.trials).")] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials that train at once. Else as many as there is room for."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What the search is called.")] = None,
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait-for-resources", help="Wait when the cluster is too small.")] = False,
    publish: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Publish the best trial's policy as a version of this model.")
    ] = None,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Report to Weights & Biases, one W&B run for each seed of a trial.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train many trials of one spec, stop bad ones early, and keep the best.

    Ctrl-C stops them with checkpoints and says how to go on; a second one stops at once. What is changed by --set are
    fields of the search, such as budget.trials=8 or run.env.n_envs=4.
    """
    changes = _changes(overrides, trials, name)
    if (config is None) == (resume is None):
        raise SpecError("Give the file of a search, such as configs/search/cartpole_ppo.yaml, or `--resume ID`.")
    if resume is not None and (changes or wandb):
        raise SpecError("`--resume` goes on with a search as it was asked for. Leave out what changes it.")
    from rlplatform.artifacts.search_dir import SearchDir
    from rlplatform.commands.workspace import home, start_logs
    from rlplatform.policy.registry import check_model_name

    if publish is not None:
        check_model_name(publish)
    if config is not None:
        spec = load(config, changes, wandb=wandb)
        search = search_of_this_job(spec)
    elif resume is not None:
        search = SearchDir.open(home(), resume)
    from rlplatform.cluster.runner import RayOptions

    start_logs()
    options = RayOptions(address=address, limit=concurrent, wait_for_resources=wait)
    result = _run(spec, options) if search is None else _resume(search, options)
    finish(search or SearchDir.open(home(), result.search_id), result, publish, as_json)


def load(config: Path, changes: Sequence[str], *, wandb: bool) -> SearchSpec:
    """Return the search of a file.

    Args:
        config: The file.
        changes: ``field=value``, as `--set` takes them.
        wandb: Report to Weights & Biases; what the file says of it is kept.

    Raises:
        SpecError: It is not valid.
    """
    from rlplatform.specs.search_load import load_search_spec

    spec = load_search_spec(config, overrides=changes)
    if wandb and spec.run.tracking.wandb is None:
        return load_search_spec(config, overrides=[*changes, "run.tracking.wandb={}"])
    return spec


def finish(search: SearchDir, result: SearchResult, publish: str | None, as_json: bool) -> None:
    """Write and print what a search came to, publish its best policy, and leave with the exit code.

    Args:
        search: The search.
        result: How it ended.
        publish: The model to publish the best policy as.
        as_json: Print JSON.

    Raises:
        typer.Exit: Always: 0 completed, 1 failed or no trial has a value, 130 stopped before it was done.
    """
    from rlplatform.commands.publishing import publish_run
    from rlplatform.commands.searches import print_leaderboard
    from rlplatform.report.search_report import best_run, write_search_report

    report = write_search_report(search)
    version = None
    if publish is not None and result.state == "completed" and report.best is not None:
        run = best_run(search, report.best).id
        version = publish_run(run, which=search.record.objective.of, name=publish)
    if as_json:
        print_json(
            {
                "search": search.id,
                "path": search.path,
                "state": result.state,
                "reason": result.reason,
                "best": report.best,
                "trials": report.rows,
                "files": report.files,
                "published": None if version is None else version.reference,
            }
        )
    else:
        print_leaderboard(report.rows[:SHOWN_TRIALS])
        if version is not None:
            print(f"Published {version.reference} from {version.manifest.lineage.run_id}: {version.bundle_path}")
    _suggest(search, result, report, publish if version is None else None)
    if result.state != "completed":
        raise typer.Exit(1 if result.state == "failed" else INTERRUPTED)
    raise typer.Exit(0 if report.best is not None else 1)


def search_of_this_job(spec: SearchSpec) -> SearchDir | None:
    """Return the search of a spec that this process's job began before; None if it began none, or outside a job."""
    from rlplatform.artifacts.provenance import job_id
    from rlplatform.artifacts.search_dir import SearchDir, list_searches
    from rlplatform.commands.workspace import home

    job = job_id()
    if job is None:
        return None
    found = [one for one in list_searches(home()) if (one.job, one.spec_digest) == (job, spec.digest())]
    return SearchDir.open(home(), found[0].id) if found else None


def _changes(overrides: list[str] | None, trials: int | None, name: str | None) -> list[str]:
    import json

    changes = list(overrides or ())
    changes += [f"budget.trials={trials}"] if trials is not None else []
    return changes + ([f"name={json.dumps(name)}"] if name is not None else [])  # quoted, as 2026 is a name too


def _run(spec: SearchSpec, options: RayOptions) -> SearchResult:
    from rlplatform.commands.search_progress import watch_search
    from rlplatform.commands.workspace import home
    from rlplatform.tune.run import run_search

    with watch_search(spec.objective) as on_progress:
        return run_search(spec, home(), options, on_progress)


def _resume(search: SearchDir, options: RayOptions) -> SearchResult:
    from rlplatform.commands.search_progress import watch_search
    from rlplatform.tune.run import resume_search

    ended, record = [trial.trial_id for trial in search.trials() if trial.ended_for_good], search.read()
    if record.state != "completed":
        say(f"Going on with search {search.id}: {len(ended)} of {record.n_trials} trials have ended.")
    with watch_search(record.objective, ended) as on_progress:
        return resume_search(search, options, on_progress)


def _suggest(search: SearchDir, result: SearchResult, report: SearchReport, unpublished: str | None) -> None:
    """Say where everything is, and what can be typed next."""
    from rlplatform import names
    from rlplatform.report.search_report import best_run

    say(f"Search {search.id} {result.state}: {result.reason}. Everything is in {search.path}.")
    commands = []
    if result.state != "completed":
        more = f" --publish {unpublished}" if unpublished else ""
        commands.append((f"rlplatform tune --resume {search.id}{more}", "go on with it"))
    elif unpublished:
        say(f"Nothing is published as {unpublished}: no trial has a value.")
    if report.best is not None:
        best = shlex.quote(str(search.path / names.BEST_SPEC_FILE))
        commands.append((f"rlplatform train {best} --seeds 1-5", "train the best spec anew"))
        run = best_run(search, report.best).id
        commands.append((f"rlplatform models publish {run} --name NAME", "make its policy a model"))
    tb = shlex.quote(str(search.path / names.TENSORBOARD_DIR))
    next_commands(*commands, (f"tensorboard --logdir {tb}", "look at the trials and their parameters"))
