"""Training for `train`, `resume` and `demo`: here or on Ray, watched, and with a table of results in the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from rlplatform.artifacts.job_runs import run_of_this_job
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.commands.interrupt import stop_on_interrupt
from rlplatform.commands.output import duration, interval, next_commands, number, print_json, print_table, say
from rlplatform.commands.progress import watch_runs
from rlplatform.commands.workspace import home
from rlplatform.report.tables import RunRow, best_of, group_rows, run_row
from rlplatform.specs.run import RunSpec
from rlplatform.train.progress import Listener, Progress

if TYPE_CHECKING:
    from rlplatform.cluster.runner import RayOptions
    from rlplatform.train.trainer import Trainer

INTERRUPTED = 130


@dataclass(frozen=True)
class Place:
    """Where runs train."""

    local: bool = False
    """In this process, one after the other, without Ray."""
    address: str | None = None
    """The Ray cluster to join. None: RAY_ADDRESS, else a local Ray."""
    concurrency: int | None = None
    """Most runs at a time on Ray. None: as many as there is room for."""
    wait_for_resources: bool = False
    """Queue runs that the cluster is too small for."""
    detach: bool = False
    """Return once the runs are queued on the cluster."""


def train_new(specs: Sequence[RunSpec], place: Place) -> list[RunDir]:
    """Train a new run of each spec, and show how they go.

    Raises:
        RlPlatformError: Nothing could be started, or a local run failed.
    """
    if place.local:
        return _train_here(_creator(spec) for spec in specs)
    from rlplatform.cluster.runner import train_on_ray

    with watch_runs() as watcher:
        records = train_on_ray(specs, home(), _ray_options(place), _each(watcher))
    return [RunDir.open(home(), record.id) for record in records]


def train_on(runs: Sequence[RunDir], place: Place) -> list[RunDir]:
    """Train existing runs on from their newest undamaged checkpoints, and show how they go.

    Raises:
        RlPlatformError: Nothing could be started, or a local run failed.
    """
    if place.local:
        return _train_here(_opener(run) for run in runs)
    from rlplatform.cluster.runner import run_on_ray

    with watch_runs() as watcher:
        run_on_ray(runs, home(), _ray_options(place), _each(watcher))
    return list(runs)


def report_and_exit(runs: Sequence[RunDir], as_json: bool) -> None:
    """Print what became of runs and what to type next, then leave with the exit code that says the same.

    Raises:
        typer.Exit: Always: 0 all completed (or are queued, detached), 1 one failed, 130 one was stopped or paused.
    """
    rows = [run_row(run.read()) for run in runs]
    if as_json:
        print_json({"runs": rows, "groups": group_rows(rows)})
    else:
        print_results(rows)
        _suggest(rows, runs)
    raise typer.Exit(exit_code(row.state for row in rows))


def exit_code(states: Iterable[str]) -> int:
    """Return the exit code for the states that runs ended in."""
    seen = set(states)
    if "failed" in seen:
        return 1
    return INTERRUPTED if seen & {"stopped", "paused"} else 0


def print_results(rows: Sequence[RunRow]) -> None:
    """Print the table of runs and, where several differ in the seed only, what they say together."""
    print_table(
        ("run", ">seed", "state", ">steps", ">final return [95 % CI]", ">episodes", ">best evaluation", ">wall time"),
        [
            (
                row.run,
                str(row.seed),
                row.state,
                f"{row.step:,}",
                interval(row.return_mean, row.return_ci_low, row.return_ci_high),
                "" if row.n_episodes is None else str(row.n_episodes),
                number(row.best_return),
                duration(row.wall_s),
            )
            for row in rows
        ],
    )
    for group in group_rows(rows):
        if group.seeds > 1:
            print(
                f"{group.name}: IQM {number(group.iqm.value)} over {group.seeds} seeds, "
                f"95 % stratified bootstrap interval [{number(group.iqm.low)}, {number(group.iqm.high)}]"
            )


def _suggest(rows: Sequence[RunRow], runs: Sequence[RunDir]) -> None:
    """Say why runs did not complete, and what can be typed next."""
    for row in rows:
        if row.state != "completed":
            say(f"{row.run} {row.state}: {row.reason}")
    completed = [row for row in rows if row.state == "completed"]
    unfinished = [row for row in rows if row.state in ("stopped", "paused", "failed")]
    commands = []
    if unfinished:
        commands.append((f"rlplatform resume {' '.join(row.run for row in unfinished)}", "go on exactly from there"))
    if completed:
        best = best_of(completed).run
        commands += [
            (f"rlplatform evaluate {best}", "measure its best policy again, on other episodes"),
            (f"rlplatform models publish {best}", "make it a model that can be served"),
        ]
    tb = runs[0].tb_path if len(runs) == 1 else runs[0].path.parent
    look = "look at its curves" if len(runs) == 1 else "compare curves"
    commands.append((f"tensorboard --logdir {shlex.quote(str(tb))}", look))
    next_commands(*commands)


def _train_here(makers: Iterable[Callable[[Listener], Trainer]]) -> list[RunDir]:
    """Train one run after the other in this process; after Ctrl-C no further one begins."""
    done = []
    with watch_runs() as watcher:
        for make in makers:
            trainer = make(watcher)
            done.append(trainer.run_dir)
            say(f"Run {trainer.run_dir.id} in {trainer.run_dir.path}")
            with stop_on_interrupt(trainer.request_stop) as interruption:
                try:
                    trainer.fit()
                except KeyboardInterrupt:
                    break
            if interruption.requested:
                break
    return done


def _creator(spec: RunSpec) -> Callable[[Listener], Trainer]:
    def create(listener: Listener) -> Trainer:
        from rlplatform.train.resolve import resolve
        from rlplatform.train.trainer import Trainer

        resolved = resolve(spec)
        made_before = run_of_this_job(home(), resolved)
        return Trainer.open(made_before, listener) if made_before else Trainer.create(resolved, home(), listener)

    return create


def _opener(run: RunDir) -> Callable[[Listener], Trainer]:
    def open_run(listener: Listener) -> Trainer:
        from rlplatform.train.trainer import Trainer

        return Trainer.open(run, listener)

    return open_run


def _each(watcher: Listener) -> Callable[[Sequence[Progress]], None]:
    def on_progress(all_runs: Sequence[Progress]) -> None:
        for progress in all_runs:
            watcher.on_progress(progress)

    return on_progress


def _ray_options(place: Place) -> RayOptions:
    from rlplatform.cluster.runner import RayOptions

    return RayOptions(
        address=place.address,
        limit=place.concurrency,
        wait_for_resources=place.wait_for_resources,
        detach=place.detach,
    )
