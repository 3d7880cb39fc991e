"""Trains configs over several seeds through the platform and writes docs/results/quality.md.

    python -m benchmarks.quality                                     every config of SUITE, five seeds, two at a time
    python -m benchmarks.quality cartpole_ppo --seeds 1,2,3 --jobs 1
    python -m benchmarks.quality --report-only                       write the page again from the records

Each config and seed is trained by `Trainer` in a process of its own. What is finished is not repeated, and what was
interrupted goes on from its last checkpoint, so the command may be stopped and given again at any time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium as gym

from benchmarks.page import ROOT, describe_machine, write_page
from benchmarks.seeds import interval, minutes, read_records, train, train_missing
from rlplatform.artifacts.atomic import write_json
from rlplatform.report.statistics import interquartile_mean

RECORDS = ROOT / "results" / "quality" / "records"
PAGE = ROOT / "docs" / "results" / "quality.md"
SUITE = (
    "cartpole_ppo",
    "cartpole_a2c",
    "cartpole_dqn",
    "acrobot_dqn",
    "acrobot_ppo",
    "pendulum_sac",
    "pendulum_td3",
    "lunar_lander_ppo",
)
"""Configs that are trained unless others are named."""
N_EPISODES = 100
PUBLISHED = {
    ("ppo", "CartPole-v1"): "500.0 ± 0.0 (100 k)",
    ("a2c", "CartPole-v1"): "500.0 ± 0.0 (500 k)",
    ("dqn", "CartPole-v1"): "500.0 ± 0.0 (50 k)",
    ("qrdqn", "CartPole-v1"): "500.0 ± 0.0 (50 k)",
    ("trpo", "CartPole-v1"): "500.0 ± 0.0 (100 k)",
    ("ars", "CartPole-v1"): "500.0 ± 0.0 (50 k)",
    ("ppo", "Acrobot-v1"): "-73.5 ± 18.2 (1 M)",
    ("a2c", "Acrobot-v1"): "-83.4 ± 17.2 (500 k)",
    ("dqn", "Acrobot-v1"): "-76.6 ± 11.8 (100 k)",
    ("dqn", "MountainCar-v0"): "-100.8 ± 9.9 (120 k)",
    ("ppo", "MountainCarContinuous-v0"): "88.3 ± 2.6 (20 k)",
    ("sac", "MountainCarContinuous-v0"): "94.7 ± 1.1 (50 k)",
    ("td3", "MountainCarContinuous-v0"): "93.5 ± 0.1 (300 k)",
    ("ppo", "Pendulum-v1"): "-172.2 ± 104.2 (100 k)",
    ("sac", "Pendulum-v1"): "-157.0 ± 88.7 (20 k)",
    ("td3", "Pendulum-v1"): "-151.9 ± 90.2 (20 k)",
    ("tqc", "Pendulum-v1"): "-151.3 ± 87.9 (20 k)",
    ("ppo", "LunarLander-v3"): "242.1 ± 31.8 (1 M, v2)",
    ("dqn", "LunarLander-v3"): "154.4 ± 79.2 (100 k, v2)",
    ("ppo", "LunarLanderContinuous-v3"): "270.9 ± 32.1 (1 M, v2)",
    ("sac", "LunarLanderContinuous-v3"): "260.4 ± 65.5 (500 k, v2)",
    ("td3", "LunarLanderContinuous-v3"): "207.5 ± 67.6 (300 k, v2)",
    ("ppo", "BipedalWalker-v3"): "287.9 ± 2.4 (5 M)",
}
"""RL Zoo's benchmark.md (DLR-RM/rl-baselines3-zoo, 2026-04-23): mean and deviation over one model's episodes."""


@dataclass(frozen=True)
class SeedResult:
    """What one config gave with one seed. Returns are means over `N_EPISODES` episodes."""

    config: str
    seed: int
    algorithm: str
    env: str
    steps: int
    last_return: float
    last_std: float
    best_return: float
    best_std: float
    wall_s: float
    """Seconds of the last attempt, imports left out."""
    cpu_s: float
    """CPU seconds of the last attempt."""
    resumed: bool
    """The run was interrupted, so `wall_s` and `cpu_s` are not those of the whole run."""
    run: str


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=list(SUITE), help="names of files in configs/train")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--train-one", type=int, metavar="SEED", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.train_one is not None:
        train_one(arguments.configs[0], arguments.train_one)
        return 0
    failed = 0
    if not arguments.report_only:
        pairs = [(config, int(seed)) for config in arguments.configs for seed in arguments.seeds.split(",")]
        wanted = {_record(config, seed): (config, "--train-one", str(seed)) for config, seed in pairs}
        failed = train_missing("benchmarks.quality", wanted, arguments.jobs)
    write_report()
    return 1 if failed else 0


def _record(config: str, seed: int) -> Path:
    return RECORDS / f"{config}-s{seed}.json"


def train_one(config: str, seed: int) -> None:
    """Train one config with one seed, evaluate its last and best policy on the same episodes, and keep the result."""
    from rlplatform.train.compare import newest_policy
    from rlplatform.train.evaluate import evaluate
    from rlplatform.train.policy_folder import load_policy
    from rlplatform.train.seeding import derive_seed

    training = train(_record(config, seed), config, [f"seed={seed}"])
    spec, run_dir = training.spec, training.run_dir
    last, best = (
        evaluate(
            load_policy(folder, spec.algorithm.name), spec.env, n_episodes=N_EPISODES, seed=derive_seed(seed, "quality")
        )
        for folder in (newest_policy(run_dir), run_dir.best_path)
    )
    result = SeedResult(
        config,
        seed,
        spec.algorithm.name,
        spec.env.id,
        training.step,
        last.return_mean,
        last.return_std,
        best.return_mean,
        best.return_std,
        training.wall_s,
        training.cpu_s,
        training.resumed,
        run_dir.path.name,
    )
    write_json(_record(config, seed), asdict(result))


def write_report() -> None:
    """Write the page from the records."""
    by_config: dict[str, list[SeedResult]] = {}
    for record in sorted(read_records(RECORDS, SeedResult), key=lambda record: record.seed):
        by_config.setdefault(record.config, []).append(record)
    order = sorted(by_config, key=lambda config: (SUITE.index(config) if config in SUITE else len(SUITE), config))
    rows = [_row(config, by_config[config]) for config in order]
    seeds = [
        f"| `{config}` | "
        + " | ".join(
            ", ".join(f"{value:.1f}" for value in values)
            for values in ([r.last_return for r in by_config[config]], [r.best_return for r in by_config[config]])
        )
        + " |"
        for config in order
    ]
    write_page(
        PAGE,
        "Quality: what the tuned configs reach",
        "python -m benchmarks.quality",
        f"""
Each row is one file of `configs/train`, trained by the platform's `Trainer`, one run for each seed. *Last* is the
policy at the end of the budget, *best* the one that evaluated best during training, on other episodes than these.
Both are measured over {N_EPISODES} greedy episodes on the true return. IQM is the interquartile mean over training
seeds with a 95 % bootstrap interval (Agarwal et al., 2021, arXiv 2108.13264). The task's bar, where Gymnasium names
one, counts the last policy. Minutes are medians over seeds, evaluation during training included: of the CPU, and of
the wall clock while other programs used the two cores as well.

RL Zoo publishes one model for each row, the mean ± deviation over its episodes: read it as a landmark, not as a mean
over seeds.

| Config | Steps | Seeds | Last: IQM [95 % CI] | Seeds at the bar | Best: IQM [95 % CI] | CPU min | Wall min | RL Zoo |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

## Seed by seed

| Config | Last | Best |
|---|---|---|
{chr(10).join(seeds)}

{describe_machine()}
""",
    )


def _row(config: str, results: list[SeedResult]) -> str:
    first = results[0]
    last = interquartile_mean([result.last_return for result in results])
    best = interquartile_mean([result.best_return for result in results])
    threshold = gym.spec(first.env).reward_threshold
    at_bar = sum(result.last_return >= threshold for result in results) if threshold is not None else None
    bar = "—" if at_bar is None else f"{at_bar} of {len(results)} ≥ {threshold:g}"
    whole = [result for result in results if not result.resumed]
    return (
        f"| `{config}` | {first.steps:,} | {len(results)} | {interval(last)} | {bar} | {interval(best)} | "
        f"{minutes([result.cpu_s for result in whole])} | {minutes([result.wall_s for result in whole])} | "
        f"{PUBLISHED.get((first.algorithm, first.env), '—')} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
