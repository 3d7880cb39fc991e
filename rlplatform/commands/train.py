"""`rlplatform train`: from a config and the command line to runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Address, Json, Overrides, parse_seeds
from rlplatform.commands.output import print_json, print_table
from rlplatform.errors import SpecError

if TYPE_CHECKING:
    from rlplatform.specs.load import Loaded


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.", show_default=False)],
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the run.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Several runs, one for each seed: 1,2,3 or 1-4.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What the runs are called.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Train in this process, one run after the other, without Ray.")
    ] = False,
    address: Address = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most N runs together. Else as many as there is room for.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait-for-resources", help="Wait when the cluster is too small, instead of giving up.")
    ] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Return once the runs are queued; only on a cluster that goes on without us."),
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Report to Weights & Biases, one W&B run for each run.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every value of the spec with its origin, and train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train one run for each seed, in parallel on Ray.

    Ctrl-C stops at the next rollout boundary with a checkpoint; a second one stops at once.
    """
    from rlplatform.specs.load import load_run_spec

    if seed is not None and seeds is not None:
        raise SpecError(
            "`--seed` and `--seeds` exclude each other. Use --seed 3 for one run, --seeds 1,2,3 for several."
        )
    changes = list(overrides or ())
    changes += [f"name={json.dumps(name)}"] if name is not None else []  # quoted, as 2026 is a name too
    changes += [f"seed={seed}"] if seed is not None else []
    if wandb and load_run_spec(config, overrides=changes).spec.tracking.wandb is None:
        changes.append("tracking.wandb={}")
    numbers = parse_seeds(seeds) if seeds is not None else ()
    loaded = [load_run_spec(config, overrides=[*changes, f"seed={number}"]) for number in numbers]
    loaded = loaded or [load_run_spec(config, overrides=changes)]
    if explain:
        _explain(loaded[0], as_json)
        return
    from rlplatform.commands.training import Place, report_and_exit, train_new
    from rlplatform.commands.workspace import start_logs

    start_logs()
    place = Place(local, address, concurrency, wait, detach)
    report_and_exit(train_new([one.spec for one in loaded], place), as_json)


def _explain(loaded: Loaded, as_json: bool) -> None:
    """Print each value of the spec beside where it comes from."""
    from rlplatform.report.explain import explain_spec

    rows = explain_spec(loaded.spec, loaded.origins)
    if as_json:
        print_json({row.field: {"value": row.value, "origin": row.origin} for row in rows})
    else:
        print_table(("field", "value", "origin"), [(row.field, row.text, row.origin) for row in rows])
