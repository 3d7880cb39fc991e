"""Kills runs with SIGKILL at drawn moments, resumes them, compares bytes, and writes docs/results/resume.md.

    python -m benchmarks.resume_kills                     four kills for each case and moment: 20 for each moment
    python -m benchmarks.resume_kills --kills 1 --cases dqn

A case is trained once without interruption, which also counts how often each kind of moment comes. Then, for each
kill, a process trains it anew and sends SIGKILL to itself at a drawn one of those moments, and a second process
resumes it. Every tensor in the last checkpoint (networks, target networks, optimizers), every line of metrics.jsonl
without its `time/` keys and every line of evaluations.jsonl must be what the uninterrupted run wrote.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.kills import MOMENTS, Kill, Outcome, kill_and_resume, train
from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform.specs.run import RunSpec

PAGE = ROOT / "docs" / "results" / "resume.md"


def _case(algorithm: Mapping[str, Any], env: Mapping[str, Any], steps: int) -> RunSpec:
    return RunSpec.model_validate(
        {
            "algorithm": algorithm,
            "env": env,
            "budget": {"total_timesteps": steps},
            "seed": 11,
            "evaluation": {"every_steps": steps // 6, "n_episodes": 3, "final_episodes": 3},
            "checkpoint": {"every_steps": steps // 4},
            "tracking": {"log_every_steps": steps // 12},
        }
    )


CASES = {
    "ppo": _case(
        {"name": "ppo", "n_steps": 64, "batch_size": 64, "n_epochs": 2},
        {
            "id": "LunarLander-v3",
            "kwargs": {"enable_wind": True},
            "n_envs": 4,
            "normalize": {"obs": True, "reward": True},
        },
        3_072,
    ),
    "a2c": _case({"name": "a2c"}, {"id": "Acrobot-v1", "n_envs": 4}, 2_400),
    "dqn": _case(
        {"name": "dqn", "learning_starts": 200, "buffer_size": 1_000, "target_update_interval": 100},
        {"id": "CartPole-v1"},
        2_400,
    ),
    "sac": _case(
        {
            "name": "sac",
            "learning_starts": 100,
            "buffer_size": 600,
            "use_sde": True,
            "policy_kwargs": {"net_arch": [32, 32]},
        },
        {"id": "Pendulum-v1"},
        1_200,
    ),
    "recurrent_ppo": _case(
        {
            "name": "recurrent_ppo",
            "n_steps": 32,
            "batch_size": 64,
            "n_epochs": 1,
            "policy_kwargs": {"lstm_hidden_size": 16},
        },
        {"id": "CartPole-v1", "n_envs": 4},
        1_536,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, resume, compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--kills", type=int, default=4, help="for each case and moment")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        home = Path(folder)
        references = dict(
            zip(arguments.cases, pool.map(lambda case: train(CASES[case], home), arguments.cases), strict=True)
        )
        plan = [
            (CASES[case], moment, arguments.seed * 1_000_000 + number, references[case], home)
            for case in arguments.cases
            for moment in MOMENTS
            for number in range(arguments.kills)
        ]
        kills = list(pool.map(lambda planned: _kill(*planned), plan))
    _report(arguments, references, kills)
    return 0 if all(kill.exact for kill in kills) else 1


def _kill(spec: RunSpec, moment: str, seed: int, reference: Outcome, home: Path) -> Kill:
    kill = kill_and_resume(spec, moment, seed, reference, home)
    print(json.dumps(asdict(kill)), flush=True)
    return kill


def _report(arguments: argparse.Namespace, references: Mapping[str, Outcome], kills: Sequence[Kill]) -> None:
    def cell(case: str, moment: str) -> str:
        chosen = [kill for kill in kills if (kill.title, kill.moment) == (CASES[case].title, moment)]
        return f"{sum(kill.exact for kill in chosen)} of {len(chosen)}"

    header = " | ".join(MOMENTS.values())
    rows = [
        f"| {case}, `{CASES[case].env.id}` | " + " | ".join(cell(case, moment) for moment in MOMENTS) + " |"
        for case in references
    ]
    died = Counter(kill.moment for kill in kills)
    exact = Counter(kill.moment for kill in kills if kill.exact)
    totals = [f"{exact[moment]} of {died[moment]}" for moment in MOMENTS]
    draws = [
        f"| {case} | {MOMENTS[moment]} | {references[case].moments[moment]:,} | "
        + ", ".join(
            f"{kill.tick}→{kill.resumed_from}"
            for kill in kills
            if (kill.title, kill.moment) == (CASES[case].title, moment)
        )
        + " |"
        for case in references
        for moment in MOMENTS
    ]
    command = f"python -m benchmarks.resume_kills --kills {arguments.kills} --seed {arguments.seed}"
    write_page(
        PAGE,
        "Exact resume: killed at any moment, the same bytes in the end",
        command,
        f"""
Each run was killed once with SIGKILL, at a moment drawn from all moments of its kind, and resumed by a new process.
It counts as exact when every tensor of its last checkpoint (networks, target networks, optimizers), every line of
metrics.jsonl without its `time/` keys and every line of evaluations.jsonl equal those of a run that nobody
interrupted.

| Run | {header} |
|---|{"---:|" * len(MOMENTS)}
{chr(10).join(rows)}
| **all** | {" | ".join(totals)} |

## Every draw

`tick→step`: killed at which moment of its kind, and the step of the checkpoint it went on from (0: none was there
yet). While a checkpoint is written, a moment is a file that is opened, linked, renamed or removed; during evaluation
and between checkpoints it is a step; inside an update it is a step of the optimizer. The draw's seed is the number of
the kill, from 0 ({arguments.seed} million more for each unit of `--seed`).

| Run | Moment | Moments | Kills |
|---|---|---:|---|
{chr(10).join(draws)}

{describe_machine()}
""",
    )


if __name__ == "__main__":
    raise SystemExit(main())
