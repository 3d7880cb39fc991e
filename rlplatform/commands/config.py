"""`rlplatform config`: write, check and describe the YAML files that runs are made from."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from rlplatform.commands.options import Json, Overrides
from rlplatform.commands.output import next_commands, print_json, say

app = typer.Typer(help="Write, check and describe configs.", no_args_is_help=True)

STARTER = """\
# What one run trains. Every other field has a default: `rlplatform train {path} --explain` shows them all,
# `rlplatform config schema` describes them.
algorithm:
  name: {algorithm}
env:
  id: {env}
  n_envs: {n_envs}
budget:
  total_timesteps: 100_000
evaluation:
  every_steps: 10_000
"""


@app.command()
def validate(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="YAML files.", show_default=False)],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check configs as training would: fields, names, and that the algorithm fits the environment."""
    from rlplatform.specs.load import load_run_spec
    from rlplatform.train.resolve import resolve

    specs = {str(path): resolve(load_run_spec(path, overrides=overrides or ()).spec) for path in configs}
    if as_json:
        print_json(specs)
        return
    for path, spec in specs.items():
        print(
            f"{path}: {spec.algorithm.name} on {spec.env.id}, {spec.env.n_envs} environments ({spec.env.backend}, "
            f"restored by {spec.env.state}), {spec.budget.total_timesteps:,} steps"
        )
    next_commands((f"rlplatform train {shlex.quote(str(configs[0]))}", "train it"))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a run's config, for editors."""
    from rlplatform.specs.schema import run_spec_schema

    print_json(run_spec_schema())


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")] = Path("run.yaml"),
    algorithm: Annotated[str, typer.Option(metavar="NAME", help="See `rlplatform algorithms`.")] = "ppo",
    env: Annotated[str, typer.Option(metavar="ID", help="See `rlplatform environments`.")] = "CartPole-v1",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a small config to start from."""
    from rlplatform.algos.catalog import find_algorithm
    from rlplatform.artifacts.atomic import write_text
    from rlplatform.errors import StorageError

    entry = find_algorithm(algorithm)
    if not path.parent.is_dir():
        raise StorageError(f"{path} cannot be written: there is no folder {path.parent}. Make it, or give another.")
    if path.exists() and not force:
        raise StorageError(f"{path} exists already. Give another name, or --force to replace it.")
    n_envs = 8 if entry.family == "on_policy" else 1
    typed = shlex.quote(str(path))
    plain = re.fullmatch(r"[A-Za-z][\w./:-]*\w", env)
    text = env if plain else json.dumps(env, ensure_ascii=False)
    write_text(path, STARTER.format(path=typed, algorithm=entry.name, env=text, n_envs=n_envs))
    say(f"Wrote {path}.")
    next_commands(
        (f"rlplatform config validate {typed}", "check it"),
        (f"rlplatform train {typed}", "train it"),
    )
