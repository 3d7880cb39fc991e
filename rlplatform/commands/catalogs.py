"""`rlplatform algorithms | environments | wrappers | rewards`: what there is to name in a spec."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from rlplatform.commands.output import MISSING, print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def algorithms(as_json: Json = False) -> None:
    """List the algorithms."""
    from rlplatform.algos.catalog import algorithms as catalog

    columns = ("name", "action spaces", "what it is", "paper")
    rows = [(entry.name, ", ".join(entry.action_spaces), entry.summary, entry.paper) for entry in catalog().values()]
    _print(columns, rows, catalog().values(), as_json)


def environments(as_json: Json = False) -> None:
    """List well-known environments; any other Gymnasium id or `module:Class` works too."""
    from rlplatform.envs.catalog import environments as catalog

    _print(
        ("id", "what it is"), [(entry.id, entry.summary) for entry in catalog().values()], catalog().values(), as_json
    )


def wrappers(as_json: Json = False) -> None:
    """List the wrappers for `env.wrappers`; `module:Class` works too."""
    from rlplatform.envs.catalog import wrappers as catalog

    _print(
        ("name", "what it does"),
        [(entry.name, entry.summary) for entry in catalog().values()],
        catalog().values(),
        as_json,
    )


def rewards(as_json: Json = False) -> None:
    """List the reward functions for `env.reward`; `module:function` works too."""
    from rlplatform.envs.catalog import rewards as catalog

    _print(
        ("name", "what it is"),
        [(entry.name, entry.summary) for entry in catalog().values()],
        catalog().values(),
        as_json,
    )


def _print(columns: Sequence[str], rows: Iterable[Sequence[str]], entries: Iterable[Any], as_json: bool) -> None:
    if as_json:
        print_json(list(entries))
    else:
        print_table(columns, [[cell or MISSING for cell in row] for row in rows])
