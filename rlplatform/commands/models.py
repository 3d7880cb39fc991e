"""`rlplatform models`: publish policies, and manage models, their versions and aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Json, Which, check_which
from rlplatform.commands.output import MISSING, interval, next_commands, print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from rlplatform.policy.registry import ModelVersion

app = typer.Typer(help="Publish policies, and manage models, versions and aliases.", no_args_is_help=True)

Reference = Annotated[
    str, typer.Argument(metavar="MODEL", help="name, name@number or name@alias.", show_default=False)
]  # fmt: skip
Version = Annotated[str, typer.Argument(metavar="VERSION", help="name@number or name@alias.", show_default=False)]
ALIAS_HELP = "The alias that serves as the bar and is moved."


@app.command()
def publish(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, or the path of a checkpoint.", show_default=False)],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The model. Else the run's name.")] = None,
    which: Which = "best",
    alias: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Also point this alias at the new version.")
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=0, metavar="N", help="Episodes of the evaluation that goes with it; 0 for none.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """Publish a policy as the next version of a model: ONNX and JSON, which run no code when loaded."""
    check_which(which)
    from rlplatform.commands.publishing import publish_run

    version = publish_run(run, which=which, name=name, alias=alias, n_episodes=episodes)
    if as_json:
        print_json(_as_data(version))
        return
    print(f"Published {version.reference}: {version.bundle_path}")
    next_commands(
        (f"rlplatform models promote {version.reference}", "make it the champion, if it is better"),
        (f"rlplatform evaluate {version.reference}", "measure the published policy"),
        (f"rlplatform models show {version.reference}", "see what it is and where it comes from"),
    )


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the models with their versions and aliases."""
    from rlplatform.commands.targets import model_registry

    models = model_registry().models()
    if as_json:
        print_json(models)
        return
    if not models:
        say("No models are published.")
        next_commands(("rlplatform runs list", "find a run"), ("rlplatform models publish RUN", "publish its policy"))
        return
    print_table(
        ("model", "versions", "aliases"),
        [
            (
                model.name,
                ", ".join(map(str, model.versions)) or MISSING,
                ", ".join(f"{alias} → {number}" for alias, number in model.aliases.items()) or MISSING,
            )
            for model in models
        ],
    )


@app.command()
def show(model: Reference, as_json: Json = False) -> None:
    """Show one version: what it is, what it is worth, where it comes from; its files are checked."""
    from rlplatform.commands.targets import model_registry

    registry = model_registry()
    version = registry.resolve(model)
    registry.verify(version)
    if as_json:
        print_json(_as_data(version))
        return
    manifest, lineage = version.manifest, version.manifest.lineage
    aliases = [alias for alias, number in registry.model(version.name).aliases.items() if number == version.number]
    step = MISSING if lineage.checkpoint_step is None else f"{lineage.checkpoint_step:,}"
    print_fields(
        {
            "version": version.reference,
            "aliases": ", ".join(aliases) or MISSING,
            "folder": str(version.bundle_path),
            "files": "every one is as it was published",
            "published": version.published_at.isoformat(timespec="seconds"),
            "policy": f"{manifest.algorithm} on {lineage.env_id or 'an unknown environment'}",
            "actions": f"{manifest.action_space.type}, {manifest.distribution.type}",
            "return": _return(version),
            "from": f"run {lineage.run_id or MISSING}, {lineage.checkpoint or MISSING}, step {step}",
            "sha256": next(iter(manifest.files.values())).sha256,
        }
    )


@app.command()
def promote(
    version: Version,
    alias: Annotated[str, typer.Option(metavar="ALIAS", help=ALIAS_HELP)] = "champion",
    min_return: Annotated[float | None, typer.Option(metavar="R", help="Least mean return.")] = None,
    min_gain: Annotated[
        float, typer.Option(metavar="R", help="What it must gain, beyond doubt, over the one that holds the alias.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Make a version the champion if its evaluation is better beyond doubt. Exit code 1 when it is not."""
    from rlplatform.commands.targets import model_registry
    from rlplatform.policy.promotion import PromotionRule

    rule = PromotionRule(min_return=min_return, min_gain=min_gain)
    decision = model_registry().promote(version, rule, alias=alias, actor="command line")
    if as_json:
        print_json(decision)
    else:
        say(f"{'Promoted' if decision.promote else 'Not promoted'}: {decision.reason}")
    raise typer.Exit(0 if decision.promote else 1)


@app.command()
def alias(
    version: Version,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.", show_default=False)],
    remove: Annotated[bool, typer.Option("--remove", help="Forget the alias instead.")] = False,
) -> None:
    """Point an alias at a version, whatever it is worth; `promote` asks first."""
    from rlplatform.commands.targets import model_registry

    registry = model_registry()
    found = registry.resolve(version)
    if remove:
        registry.remove_alias(found.name, name)
        say(f"{found.name}@{name} is forgotten.")
    else:
        registry.set_alias(found.name, name, found.number)
        say(f"{found.name}@{name} is {found.reference}.")


@app.command()
def delete(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="name for all of a model, name@number for one version.", show_default=False
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a version that no alias points at, or a whole model."""
    from rlplatform.commands.targets import model_registry

    registry = model_registry()
    if "@" in model:
        version = registry.resolve(model)
        _confirm(f"Delete {version.reference}", yes)
        registry.delete_version(version.name, version.number)
        say(f"Deleted {version.reference}. Its number is not used again.")
    else:
        found = registry.model(model)
        _confirm(f"Delete {found.name} with its {len(found.versions)} versions", yes)
        registry.delete_model(found.name)
        say(f"Deleted {found.name}.")


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(f"{question}? This cannot be undone", abort=True, err=True)


def _return(version: ModelVersion) -> str:
    from rlplatform import names

    metrics = version.manifest.metrics
    keys = (names.EVAL_RETURN_MEAN, names.EVAL_RETURN_CI_LOW, names.EVAL_RETURN_CI_HIGH)
    if keys[0] not in metrics:
        return "not evaluated"
    n_episodes = metrics.get(names.EVAL_N_EPISODES, 0)
    return f"{interval(*(metrics.get(key) for key in keys))}, mean and 95 % CI over {n_episodes:.0f} episodes"


def _as_data(version: ModelVersion) -> dict[str, object]:
    return {
        "reference": version.reference,
        "path": version.bundle_path,
        "published_at": version.published_at,
        "manifest": version.manifest,
    }
