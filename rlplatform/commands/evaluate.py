"""`rlplatform evaluate`: play whole episodes with a policy and say what it is worth."""

from __future__ import annotations

from typing import Annotated

import typer

from rlplatform.commands.options import Json, Which, check_which
from rlplatform.commands.output import number, print_fields, print_json


def evaluate(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="A run, a checkpoint's folder, a model such as cartpole@champion, or a bundle.",
            show_default=False,
        ),
    ],
    episodes: Annotated[int, typer.Option(min=1, metavar="N", help="Episodes to play.")] = 100,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the episodes.")] = 0,
    which: Which = "best",
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Draw actions instead of taking the best.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a policy on the environment's true return, on episodes that training never uses."""
    check_which(which)
    from rlplatform.commands.targets import find_target, measure

    target = find_target(policy, which)
    result = measure(target, n_episodes=episodes, seed=seed, deterministic=not stochastic)
    if as_json:
        print_json({"policy": target.label, "seed": seed, "deterministic": not stochastic, "result": result})
        return
    print_fields(
        {
            "policy": target.label,
            "episodes": f"{result.n_episodes}, seed {seed}, {'sampled' if stochastic else 'greedy'} actions",
            "return": f"{number(result.return_mean)} ± {number(result.return_std)} (standard deviation)",
            "95 % CI of the mean": f"[{number(result.return_ci_low)}, {number(result.return_ci_high)}]",
            "episode length": number(result.length_mean),
            "success rate": "no threshold is known" if result.success_rate is None else f"{result.success_rate:.0%}",
        }
    )
