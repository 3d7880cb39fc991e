"""`rlplatform demo`: the whole way in one command, from a config to a published policy."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from rlplatform.commands.options import Json
from rlplatform.commands.output import next_commands, print_json, say
from rlplatform.errors import SpecError, TrainingFailed

CONFIG = Path("configs") / "train" / "cartpole_ppo.yaml"
SEEDS = (1, 2, 3, 4)
MODEL = "cartpole-demo"
CPUS = 0.5
"""What each run books: four of them fit into two CPUs together."""


def demo(as_json: Json = False) -> None:
    """Train PPO on CartPole with four seeds in parallel Ray actors, compare them, and publish the best."""
    from rlplatform.commands.publishing import publish_run
    from rlplatform.commands.training import Place, print_results, train_new
    from rlplatform.commands.workspace import start_logs
    from rlplatform.report.tables import best_of, group_rows, run_row
    from rlplatform.specs.load import load_run_spec

    config = _config()
    start_logs()
    say(f"Four seeds of {config}, each in a Ray actor with {CPUS} CPU. About a minute of training on two cores.")
    overrides = [f"resources.cpus={CPUS}", f"name={MODEL}"]
    specs = [load_run_spec(config, overrides=[*overrides, f"seed={seed}"]).spec for seed in SEEDS]
    runs = train_new(specs, Place())
    rows = [run_row(run.read()) for run in runs]
    if not as_json:
        print_results(rows)
    completed = [row for row in rows if row.state == "completed"]
    if not completed:
        raise TrainingFailed(f"No run of the demo completed: {rows[0].run} {rows[0].state}, {rows[0].reason}.")
    best = best_of(completed).run
    version = publish_run(best, which="best", name=MODEL, alias="champion")
    if as_json:
        published = {"reference": version.reference, "run": best, "path": version.bundle_path}
        print_json({"runs": rows, "groups": group_rows(rows), "published": published})
    else:
        print(f"Published {version.reference}, also called {MODEL}@champion, from {best}: {version.bundle_path}")
    typed = shlex.quote(str(config))
    next_commands(
        (f"rlplatform evaluate {MODEL}@champion", "measure the published policy"),
        (f"rlplatform runs show {best}", "look at the run it came from"),
        (f"tensorboard --logdir {shlex.quote(str(runs[0].path.parent))}", "compare the curves"),
        (f"rlplatform verify {typed} --set budget.total_timesteps=20000", "see that a killed run resumes exactly"),
        ("rlplatform train configs/train/lunar_lander_ppo.yaml --seeds 1-4", "train something harder"),
    )
    if len(completed) < len(rows):
        raise typer.Exit(1)


def _config() -> Path:
    """Return the demo's config: beside us, or in the checkout that this package was installed from."""
    checkout = Path(__file__).resolve().parents[2] / CONFIG
    for path in (CONFIG, checkout):
        if path.is_file():
            return path
    raise SpecError(f"{CONFIG} is neither here nor at {checkout}. Run the demo in a clone of the project.")
