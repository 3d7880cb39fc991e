"""`rlplatform config`: write, check and describe the YAML files that runs are made from."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlplatform.commands.options import Json, Overrides
from rlplatform.commands.output import next_commands, print_json, say

if TYPE_CHECKING:
    from rlplatform.specs.run import RunSpec
    from rlplatform.specs.search import SearchSpec

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


@dataclass(frozen=True)
class _Checked:
    """A config that was found good."""

    spec: RunSpec | SearchSpec
    summary: str
    command: str
    """The command that takes it."""


@app.command()
def validate(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="YAML files.", show_default=False)],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check configs of runs and of searches: fields, names, and that the algorithm fits the environment."""
    from rlplatform.specs.search_load import is_search

    checked = {str(path): (_check_search if is_search(path) else _check_run)(path, overrides or ()) for path in configs}
    if as_json:
        print_json({path: found.spec for path, found in checked.items()})
        return
    for path, found in checked.items():
        print(f"{path}: {found.summary}")
    first = str(configs[0])
    next_commands((f"rlplatform {checked[first].command} {shlex.quote(first)}", "start it"))


def _check_run(path: Path, overrides: Sequence[str]) -> _Checked:
    from rlplatform.specs.load import load_run_spec
    from rlplatform.train.resolve import resolve

    spec = resolve(load_run_spec(path, overrides=overrides).spec)
    return _Checked(spec, _summary(spec), "train")


def _check_search(path: Path, overrides: Sequence[str]) -> _Checked:
    from rlplatform.specs.search_load import load_search_spec
    from rlplatform.train.resolve import resolve

    spec = load_search_spec(path, overrides=overrides)
    spec = spec.model_copy(update={"run": resolve(spec.run)})
    parameters, seeds = len(spec.space), len(spec.seeds)
    how = spec.sampler.name if spec.scheduler.name == "none" else f"{spec.sampler.name} and {spec.scheduler.name}"
    summary = (
        f"{spec.n_trials} trials of {parameters} parameter{'' if parameters == 1 else 's'} by {how}, "
        f"{seeds} seed{'' if seeds == 1 else 's'} each; {_summary(spec.run)}"
    )
    return _Checked(spec, summary, "tune")


def _summary(spec: RunSpec) -> str:
    return (
        f"{spec.algorithm.name} on {spec.env.id}, {spec.env.n_envs} environments ({spec.env.backend}, "
        f"restored by {spec.env.state}), {spec.budget.total_timesteps:,} steps"
    )


@app.command()
def schema(
    of: Annotated[Literal["run", "search"], typer.Argument(metavar="[run|search]", help="Of which config.")] = "run",
) -> None:
    """Print the JSON Schema of a run's or a search's config, for editors."""
    from rlplatform.specs.schema import run_spec_schema, search_spec_schema

    print_json(run_spec_schema() if of == "run" else search_spec_schema())


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
