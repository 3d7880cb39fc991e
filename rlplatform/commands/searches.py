"""`rlplatform searches`: look at searches, and write their reports anew."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Json
from rlplatform.commands.output import (
    MISSING,
    duration,
    interval,
    next_commands,
    number,
    print_fields,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from rlplatform.artifacts.search_dir import SearchDir
    from rlplatform.report.leaderboard import LeaderboardRow

app = typer.Typer(help="List and show searches, and write their reports anew.", no_args_is_help=True)

Search = Annotated[str, typer.Argument(metavar="SEARCH", help="Id, beginning of an id, or folder.", show_default=False)]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List the searches under RLPLATFORM_HOME, the newest first."""
    from rlplatform.artifacts.search_dir import SearchDir, list_searches
    from rlplatform.commands.workspace import home
    from rlplatform.names import SEARCHES_DIR

    records = list_searches(home())[:limit]
    if as_json:
        print_json(records)
        return
    if not records:
        say(f"No searches in {home() / SEARCHES_DIR}.")
        next_commands(("rlplatform tune configs/search/cartpole_ppo.yaml", "start one"))
        return
    print_table(
        ("search", "state", ">trials", "sampler", "scheduler", "best trial", ">best value", ">time"),
        [
            (
                record.id,
                _state(SearchDir(home() / SEARCHES_DIR / record.id), record.state),
                str(record.n_trials),
                record.sampler,
                record.scheduler,
                record.best_trial or MISSING,
                number(record.best_value),
                duration(record.elapsed_s),
            )
            for record in records
        ],
    )


@app.command()
def show(search: Search, as_json: Json = False) -> None:
    """Show a search with all its trials, from best to worst."""
    from rlplatform.artifacts.search_dir import SearchDir
    from rlplatform.commands.workspace import home
    from rlplatform.names import BEST_SPEC_FILE
    from rlplatform.report.leaderboard import leaderboard

    found = SearchDir.open(home(), search)
    record, rows = found.read(), leaderboard(found)
    if as_json:
        print_json({**record.model_dump(mode="json"), "trials": rows})
        return
    ended = sum(trial.ended_for_good for trial in found.trials())
    print_fields(
        {
            "search": record.id,
            "folder": str(found.path),
            "state": _state(found, record.state) + (f": {record.reason}" if record.reason else ""),
            "searches": f"{record.algorithm} on {record.env}, seeds {', '.join(map(str, record.seeds))}",
            "by": f"{record.sampler}, {record.scheduler}",
            "for": f"the {record.objective.mode} of {record.objective.metric}, {record.objective.of} evaluation",
            "trials": f"{ended} of {record.n_trials} ended, {sum(row.trained_steps for row in rows):,} steps",
            "wall time": f"{duration(record.elapsed_s)} in {record.attempts} attempts",
            "command": record.command,
        }
    )
    print_leaderboard(rows)
    commands = [] if record.state == "completed" else [(f"rlplatform tune --resume {record.id}", "go on with it")]
    best = found.path / BEST_SPEC_FILE
    if best.is_file():
        commands.append((f"rlplatform train {shlex.quote(str(best))} --seeds 1-5", "train the best spec anew"))
    next_commands(*commands, (f"rlplatform searches report {record.id}", "write its pictures and tables anew"))


@app.command()
def report(search: Search, as_json: Json = False) -> None:
    """Write leaderboard, pictures, HParams and best.yaml of a search as it is now, also while it goes on."""
    from rlplatform.artifacts.search_dir import SearchDir
    from rlplatform.commands.workspace import home
    from rlplatform.report.search_report import write_search_report

    written = write_search_report(SearchDir.open(home(), search))
    if as_json:
        print_json(written)
    else:
        print(*written.files, sep="\n")


def print_leaderboard(rows: Sequence[LeaderboardRow]) -> None:
    """Print trials, one line each, with a column for each parameter."""
    if not rows:
        say("There are no trials yet.")
        return
    paths = list(dict.fromkeys(path for row in rows for path in row.point))
    last = [path.rpartition(".")[2] for path in paths]
    heads = [name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)]
    value = ">value [95 % CI]" if any(row.low is not None for row in rows) else ">value"
    print_table(
        (">rank", "trial", "state", value, ">steps", *(f">{head}" for head in heads)),
        [
            (
                MISSING if row.rank is None else str(row.rank),
                row.trial,
                row.state,
                interval(row.value, row.low, row.high),
                f"{row.step:,}",
                *(_cell(row.point.get(path)) for path in paths),
            )
            for row in rows
        ],
    )


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _state(search: SearchDir, state: str) -> str:
    return f"{state}, but its process is gone" if state == "running" and not search.is_alive() else state
