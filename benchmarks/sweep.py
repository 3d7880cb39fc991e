"""Measures trials per hour of a search against plain Ray Tune around bare SB3, and writes docs/results/sweep.md.

    python -m benchmarks.sweep
    python -m benchmarks.sweep --rounds 1 --trials 4

Three sweeps of the same trials, each in a process of its own with a Ray of its own, in rounds one after the other. The
clock runs from the call that starts the sweep to its return; Ray is there before, Tune, torch and Stable-Baselines3 are
not imported yet, in the driver or anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.page import describe_machine, write_page

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "sweep.md"
STEPS, CONCURRENT, EPISODES = 4_096, 2, 10
PROMISED = 2.5
LOW, HIGH = 1e-5, 1e-2
"""Range of the learning rate."""


@dataclass(frozen=True)
class Cost:
    """What one sweep took."""

    wall_s: float
    cpu_s: float


def plain_tune(trials: int, folder: Path, evaluates: bool) -> int:
    """Run the sweep as Tune's documentation shows it: a function around `PPO.learn`."""
    from ray import tune

    def train(config: dict[str, Any]) -> None:
        import gymnasium as gym
        from stable_baselines3 import PPO
        from stable_baselines3.common.evaluation import evaluate_policy

        model = PPO("MlpPolicy", "CartPole-v1", learning_rate=config["learning_rate"], device="cpu")
        model.learn(STEPS)
        if evaluates:
            value, _ = evaluate_policy(model, gym.make("CartPole-v1"), n_eval_episodes=EPISODES)
        else:
            episodes = [episode["r"] for episode in model.ep_info_buffer or ()]
            value = sum(episodes) / len(episodes)
        tune.report({"return": value})

    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(LOW, HIGH)},
        tune_config=tune.TuneConfig(metric="return", mode="max", num_samples=trials, max_concurrent_trials=CONCURRENT),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
    return int(results.num_terminated)


def platform(trials: int, folder: Path) -> int:
    """Run the sweep as `rlplatform tune` does."""
    from rlplatform.specs.search import SearchSpec
    from rlplatform.tune.run import run_search

    spec = SearchSpec.model_validate(
        {
            "run": {
                "algorithm": "ppo",
                "env": {"id": "CartPole-v1", "backend": "sync"},
                "budget": {"total_timesteps": STEPS},
                "evaluation": {"every_steps": STEPS, "n_episodes": EPISODES, "final_episodes": 0},
            },
            "space": {"algorithm.learning_rate": {"type": "loguniform", "low": LOW, "high": HIGH}},
            "budget": {"trials": trials, "concurrent": CONCURRENT},
        }
    )
    result = run_search(spec, folder)
    return sum(trial.state == "completed" for trial in result.trials)


SIDES: dict[str, tuple[str, Callable[[int, Path], int]]] = {
    "plain": ("plain Tune, value from training", lambda trials, folder: plain_tune(trials, folder, False)),
    "plain-evaluated": ("plain Tune, evaluated", lambda trials, folder: plain_tune(trials, folder, True)),
    "platform": ("rlplatform, evaluated", platform),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every side in turn and write the page; with `--side`, be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.trials)))
        return 0
    costs: dict[str, list[Cost]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            costs[side].append(measure(side, arguments.trials))
    write_results(costs, arguments.rounds, arguments.trials)
    return 0


def run_side(side: str, trials: int) -> float:
    """Start Ray, run one sweep, and return the seconds it took; the driver has imported its modules before."""
    import ray

    from rlplatform.cluster.session import ray_session

    for module in ("ray.tune", "rlplatform.tune.run", "rlplatform.tune.drive"):
        import_module(module)
    with tempfile.TemporaryDirectory() as folder, ray_session(num_cpus=CONCURRENT):
        assert ray.is_initialized()
        began = time.monotonic()
        ended = SIDES[side][1](trials, Path(folder))
        took = time.monotonic() - began
    assert ended == trials, f"{ended} of {trials} trials ended"
    return took


def measure(side: str, trials: int) -> Cost:
    """Return what a sweep took in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--side", side, "--trials", str(trials)]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        cpu_s = cpu_seconds(process)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{side} failed: {text[-2000:]}")
    cost = Cost(float(text.splitlines()[-1]), cpu_s)
    print(
        f"{side}: {cost.wall_s:.1f} s, {cost.wall_s / trials:.2f} s and {cpu_s / trials:.2f} CPU s a trial", flush=True
    )
    return cost


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return the CPU seconds of it and of all that it started, Ray included."""
    used: dict[tuple[int, float], float] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = one.cpu_times()
                    used[one.pid, one.create_time()] = times.user + times.system
        time.sleep(0.2)
    return sum(used.values())


def write_results(costs: dict[str, list[Cost]], rounds: int, trials: int) -> None:
    """Write the page."""
    wall = {side: median(cost.wall_s for cost in found) for side, found in costs.items()}
    cpu = {side: median(cost.cpu_s for cost in found) for side, found in costs.items()}
    rows = [
        f"| {SIDES[side][0]} | {wall[side] / trials:.2f} | {3600 * trials / wall[side]:,.0f} "
        f"| {wall['plain'] / wall[side]:.2f} | {cpu[side] / trials:.2f} | {cpu['plain'] / cpu[side]:.2f} "
        f"| {', '.join(f'{cost.wall_s:.0f}' for cost in costs[side])} |"
        for side in SIDES
    ]
    write_page(
        PAGE,
        "Sweeps: the platform against plain Ray Tune",
        f"python -m benchmarks.sweep --rounds {rounds} --trials {trials}",
        f"""
{trials} trials of {STEPS:,} steps of PPO on CartPole with Stable-Baselines3's defaults, one environment, one torch
thread, {CONCURRENT} trials at a time, learning rates at random. *Plain Tune* is `tune.Tuner` with a function around
`PPO.learn`, with Tune's own loggers; it takes its value from the training episodes, or evaluates {EPISODES} episodes.
*rlplatform* is `run_search` as it is by default: {EPISODES} evaluation episodes, the best policy kept, a checkpoint,
metrics as JSON, CSV and TensorBoard, and the state of the search written after every event.

Seconds are the median of {rounds} rounds, all of which the last column shows; the clock starts when Ray stands and the
driver has imported its modules. Ratios are over the first row, and the promise is at least {PROMISED}. CPU seconds are
those of all processes, with Ray's start; they are what other programs on the machine change least.

| | A trial, s | Trials per hour | Ratio | A trial, CPU s | Ratio, CPU | Rounds, s |
|---|---:|---:|---:|---:|---:|---|
{chr(10).join(rows)}

The promise is {"kept" if wall["plain"] / wall["platform"] >= PROMISED else "not kept"}: \
{wall["plain"] / wall["platform"]:.2f}, or {wall["plain-evaluated"] / wall["platform"]:.2f} against plain Tune that \
evaluates as the platform does.

A process that has imported everything trains the next trial; Tune alone starts one for each. {describe_machine()}
""",
    )


if __name__ == "__main__":
    sys.exit(main())
