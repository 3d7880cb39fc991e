"""`rlplatform verify`: is training of this spec reproducible on this machine, and is resuming it exact?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rlplatform.commands.options import Json, Overrides
from rlplatform.commands.output import print_json, print_table, say


def verify(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.", show_default=False)],
    overrides: Overrides = None,
    kills: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="How often the third run is killed.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the three runs.")] = False,
    as_json: Json = False,
) -> None:
    """Train a spec twice, and once killed with SIGKILL and resumed; compare weights and metrics byte for byte.

    Exit code 0 when all three are the same, 1 when they are not or the run ended before it could be killed.
    """
    from rlplatform.commands.workspace import home
    from rlplatform.report.reproducibility import verify_spec
    from rlplatform.specs.load import load_run_spec

    spec = load_run_spec(config, overrides=overrides or ()).spec
    home().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="verify-", dir=home()))
    try:
        result = verify_spec(spec, folder, kills=kills, say=say)
    finally:
        if keep:
            say(f"The runs are kept in {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json({"reproducible": result.reproducible, "kills": result.kills, "runs": result.runs})
    else:
        print_table(
            ("run", "sha256 of weights", ">records of metrics", "compared with the first"),
            [
                (run.what, run.weights_sha256, str(run.metrics), run.difference or ("same" if index else ""))
                for index, run in enumerate(result.runs)
            ],
        )
    if not result.kills:
        say("The third run ended before it could be killed. Give it more steps: --set budget.total_timesteps=…")
    say("Reproducible: every byte is the same." if result.reproducible else "Not verified.")
    raise typer.Exit(0 if result.reproducible else 1)
