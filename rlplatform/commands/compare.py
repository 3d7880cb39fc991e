"""`rlplatform compare`: several specs, or one with several algorithms, over the same seeds, in one table."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Address, Json, Overrides, parse_seeds
from rlplatform.commands.output import MISSING, duration, next_commands, number, print_json, print_table, say
from rlplatform.errors import SpecError

if TYPE_CHECKING:
    from rlplatform.commands.training import Place
    from rlplatform.report.comparison import Comparison, GroupResult
    from rlplatform.report.statistics import Estimate
    from rlplatform.specs.run import RunSpec

SEEDS = "1-5"


def compare(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CONFIG", help="YAML files of runs; the first is what the others are measured against."),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="LIST", help="The seeds of each: 1,2,3 or 1-5.")] = SEEDS,
    algorithms: Annotated[
        list[str] | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="Train each config with this algorithm at its defaults, besides its own; may be repeated.",
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a comparison that was stopped or killed.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, one run after the other.")] = False,
    address: Address = None,
    concurrency: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N runs together.")] = None,
    wait: Annotated[bool, typer.Option("--wait-for-resources", help="Wait when the cluster is too small.")] = False,
    as_json: Json = False,
) -> None:
    """Train specs over the same seeds and say which is better, and how surely.

    Interquartile means over seeds with bootstrap intervals, and the probability that each ends higher than the first.
    """
    if resume is not None and (configs or algorithms or overrides):
        raise SpecError("`--resume` goes on with a comparison as it was asked for. Leave everything else out.")
    if resume is None and not configs:
        raise SpecError("What is compared? Give configs, such as `rlplatform compare a.yaml b.yaml --seeds 1-5`.")
    from rlplatform.commands.training import Place
    from rlplatform.commands.workspace import home, start_logs
    from rlplatform.report.comparison import Comparison

    place = Place(local, address, concurrency, wait)
    if resume is not None:
        comparison = Comparison.open(home(), resume)
        start_logs()
    else:
        groups = comparison_specs(configs or [], parse_seeds(seeds), algorithms or (), overrides or ())
        start_logs()
        comparison = Comparison.of_this_job(home()) or _create(groups)
    say(f"Comparison {comparison.id} in {comparison.path}")
    _train(comparison, place)
    _report_and_exit(comparison, as_json)


def comparison_specs(
    configs: Sequence[Path], seeds: Sequence[int], algorithms: Sequence[str], overrides: Sequence[str]
) -> dict[str, list[RunSpec]]:
    """Return what is to be trained: for each label one spec for each seed.

    Args:
        configs: Files of run specs.
        seeds: The seeds of each.
        algorithms: Algorithms that replace that of each config, at their defaults, besides its own.
        overrides: ``field=value``, for all of them.

    Raises:
        SpecError: A spec is not valid, two are the same, they differ in the environment, or have no final evaluation.
    """
    from rlplatform.specs.load import load_run_spec

    groups: dict[str, list[RunSpec]] = {}
    for label, config, change in _variants(configs, algorithms):
        if label in groups:
            raise SpecError(f"{label} is compared with itself. Give each config, and each algorithm, once.")
        groups[label] = [load_run_spec(config, overrides=[*change, *overrides, f"seed={seed}"]).spec for seed in seeds]
    firsts = {label: specs[0] for label, specs in groups.items()}
    envs = {label: spec.env.id for label, spec in firsts.items()}
    if len(set(envs.values())) > 1:
        found = ", ".join(f"{label} has {env}" for label, env in envs.items())
        raise SpecError(f"Returns of different environments cannot be compared: {found}. Compare on one environment.")
    silent = [label for label, spec in firsts.items() if not spec.evaluation.final_episodes]
    if silent:
        raise SpecError(
            f"`evaluation.final_episodes` of {', '.join(silent)} is 0, and a comparison is of final evaluations. "
            "Add --set evaluation.final_episodes=100."
        )
    if len({spec.budget.total_timesteps for spec in firsts.values()}) > 1:
        budgets = ", ".join(f"{label} {spec.budget.total_timesteps:,}" for label, spec in firsts.items())
        say(f"Note: the budgets differ: {budgets} steps. --set budget.total_timesteps=… makes them equal.")
    return groups


def _variants(configs: Sequence[Path], algorithms: Sequence[str]) -> Iterator[tuple[str, Path, list[str]]]:
    """Yield a label, the config, and the override that sets its algorithm, for each thing to compare."""
    from rlplatform.specs.load import load_run_spec

    stems = [config.stem for config in configs]
    for config in configs:
        label = config.stem if stems.count(config.stem) == 1 else str(config)
        yield label, config, []
        own = load_run_spec(config).spec.algorithm.name if algorithms else None
        for algorithm in algorithms:
            if algorithm != own:
                yield f"{label}:{algorithm}", config, [f"algorithm={{name: {algorithm}}}"]


def _create(groups: dict[str, list[RunSpec]]) -> Comparison:
    """Make the runs, none of them if one could not be trained, and the comparison that knows them."""
    from rlplatform.artifacts.run_dir import RunDir
    from rlplatform.commands.workspace import home
    from rlplatform.report.comparison import Comparison
    from rlplatform.train.resolve import resolve

    resolved = {label: [resolve(spec) for spec in specs] for label, specs in groups.items()}
    runs = {label: [RunDir.create(home(), spec) for spec in specs] for label, specs in resolved.items()}
    return Comparison.create(home(), runs)


def _train(comparison: Comparison, place: Place) -> None:
    from rlplatform.commands.training import train_on

    unfinished = [run for run in comparison.runs if run.read().state != "completed"]
    if unfinished:
        train_on(unfinished, place)


def _report_and_exit(comparison: Comparison, as_json: bool) -> None:
    """Write and print the results, and leave with the exit code of the runs."""
    from rlplatform.commands.training import exit_code

    results = comparison.write()
    rows = [row for group in comparison.rows().values() for row in group]
    if as_json:
        print_json({"id": comparison.id, "path": comparison.path, "groups": results, "runs": rows})
    else:
        print_groups(results)
        say(f"Written as results.json, groups.csv and runs.csv to {comparison.path}.")
    open_runs = [row for row in rows if row.state != "completed"]
    for row in open_runs:
        say(f"{row.run} {row.state}: {row.reason}")
    logs = shlex.quote(str(comparison.runs[0].path.parent))
    commands = [(f"rlplatform compare --resume {comparison.id}", "go on with what is not done")] if open_runs else []
    next_commands(*commands, (f"tensorboard --logdir {logs}", "compare the curves"))
    raise typer.Exit(exit_code(row.state for row in rows))


def print_groups(results: Sequence[GroupResult]) -> None:
    """Print one line for each spec."""
    print_table(
        ("compared", ">seeds", ">IQM [95 % CI]", ">mean ± std", ">P(better than the first) [95 % CI]", ">wall time"),
        [
            (
                result.label,
                str(result.seeds) if result.seeds == result.asked else f"{result.seeds} of {result.asked}",
                _estimate(result.iqm, 1),
                number(result.mean) + ("" if result.std is None else f" ± {result.std:,.1f}"),
                _estimate(result.improvement, 2),
                duration(result.wall_s),
            )
            for result in results
        ],
    )


def _estimate(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return MISSING
    return f"{number(estimate.value, digits)} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"
