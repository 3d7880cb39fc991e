"""`rlplatform demo`: the whole way in one command, from a config to a policy that answers over HTTP."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import typer

from rlplatform.commands.options import Json
from rlplatform.commands.output import next_commands, print_json, say
from rlplatform.errors import SpecError, TrainingFailed

CONFIG = Path("configs") / "train" / "cartpole_ppo.yaml"
SEEDS = (1, 2, 3, 4)
MODEL = "cartpole-demo"
OBSERVATION = (0.02, 0.1, -0.03, -0.2)
"""Cart position in m and velocity, pole angle in rad and velocity."""
CPUS = 0.5
"""What each run books: four of them fit into two CPUs together."""


def demo(as_json: Json = False) -> None:
    """Train PPO on CartPole with four seeds in parallel, publish the best, serve it and ask it for an action."""
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
    if not as_json:
        print(f"Published {version.reference}, also called {MODEL}@champion, from {best}: {version.bundle_path}")
    exchange = _ask_over_http()
    if as_json:
        published = {"reference": version.reference, "run": best, "path": version.bundle_path}
        print_json({"runs": rows, "groups": group_rows(rows), "published": published, "served": exchange})
    else:
        print(f"Served on {exchange['url']} through {exchange['ingress']}.")
        print(f"  POST /inference {exchange['request']}\n  {exchange['status']} {exchange['answer']}")
    typed = shlex.quote(str(config))
    next_commands(
        ("rlplatform serve", "serve it until Ctrl-C"),
        (f"rlplatform evaluate {MODEL}@champion", "measure the published policy"),
        (f"rlplatform runs show {best}", "look at the run it came from"),
        (f"tensorboard --logdir {shlex.quote(str(runs[0].path.parent))}", "compare the curves"),
        (f"rlplatform verify {typed} --set budget.total_timesteps=20000", "see that a killed run resumes exactly"),
        ("rlplatform train configs/train/lunar_lander_ppo.yaml --seeds 1-4", "train something harder"),
    )
    if len(completed) < len(rows):
        raise typer.Exit(1)


def _ask_over_http() -> dict[str, Any]:
    """Start the service, ask the champion for an action, and end the service again."""
    import httpx

    from rlplatform.serve.server import free_port, serving
    from rlplatform.serve.settings import load_serve_settings
    from rlplatform.specs.settings import load_settings

    request = {"model_name": f"{MODEL}@champion", "observation": OBSERVATION, "deterministic": True}
    say("Starting the service, to ask it for an action over HTTP.")
    with serving(load_serve_settings(port=free_port()), load_settings()) as service:
        response = httpx.post(f"{service.url}/inference", json=request, timeout=30)
        return {
            "url": service.url,
            "ingress": service.ingress,
            "request": json.dumps(request),
            "status": response.status_code,
            "answer": response.text,
        }


def _config() -> Path:
    """Return the demo's config: beside us, or in the checkout that this package was installed from."""
    checkout = Path(__file__).resolve().parents[2] / CONFIG
    for path in (CONFIG, checkout):
        if path.is_file():
            return path
    raise SpecError(f"{CONFIG} is neither here nor at {checkout}. Run the demo in a clone of the project.")
