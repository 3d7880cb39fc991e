"""`rlplatform doctor`: is everything here that training needs, and what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from rlplatform.commands.options import Json
from rlplatform.commands.output import next_commands, print_json, print_table

SIGNS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


def doctor(
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Do not start Ray, which takes a few seconds.")] = False,
    as_json: Json = False,
) -> None:
    """Check the installation, torch, GPU, Ray, disk and optional packages, and say what to do.

    Exit code 1 when a check failed.
    """
    from rlplatform.commands.workspace import home
    from rlplatform.report.health import check_installation

    checks = list(check_installation(home(), start_ray=not no_ray))
    failed = [check.name for check in checks if check.status == "failed"]
    if as_json:
        print_json(checks)
    else:
        rows = [
            (check.name, SIGNS[check.status], " ".join(filter(None, (check.found + ".", check.advice))))
            for check in checks
        ]
        print_table(("check", "", "found"), rows)
        if not failed:
            next_commands(("rlplatform demo", "train four agents, a minute or two"))
    raise typer.Exit(1 if failed else 0)
