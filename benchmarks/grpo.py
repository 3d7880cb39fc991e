"""Compares GRPO with PPO and REINFORCE over seeds, and its own settings with one another; writes docs/results/grpo.md.

    python -m benchmarks.grpo                          every comparison, five seeds, two at a time
    python -m benchmarks.grpo ablation --seeds 21,22,23
    python -m benchmarks.grpo cartpole acrobot --jobs 1
    python -m benchmarks.grpo --report-only            write the page again from the records

A suite is a set of cases: a file of `configs/train` with overrides. Each case and seed is trained by `Trainer` in a
process of its own. What is finished is not repeated, and what was interrupted goes on from its last checkpoint. Seeds
are from 20 on: settings were chosen on others.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.page import ROOT, describe_machine, write_page
from benchmarks.seeds import interval, minutes, read_records, train, train_missing
from rlplatform.artifacts.atomic import write_json
from rlplatform.report.statistics import interquartile_mean

RECORDS = ROOT / "results" / "grpo" / "records"
PAGE = ROOT / "docs" / "results" / "grpo.md"
N_EPISODES = 100
ABLATION = "ablation"


@dataclass(frozen=True)
class Case:
    """One setting: a config and what differs from it."""

    suite: str
    name: str
    config: str
    overrides: tuple[str, ...] = ()
    bar: str = ""
    """What it must show, in words."""

    @property
    def key(self) -> str:
        """Name of its records."""
        return re.sub(r"[^a-z0-9]+", "_", f"{self.suite} {self.name}".lower())


def _against_others(env: str, steps: int, bar: str, *overrides: str) -> list[Case]:
    budget = (f"budget.total_timesteps={steps}", f"evaluation.every_steps={steps // 15}")
    return [
        Case(env, "grpo", f"{env}_grpo", (*budget, *overrides), bar),
        Case(env, "reinforce", f"{env}_grpo", (*budget, *overrides, "algorithm.advantage=reinforce")),
        Case(env, "ppo", f"{env}_ppo", budget),
    ]


def _variants(episodes: int) -> dict[str, tuple[str, ...]]:
    """Return what differs from the config in each cell of the ablation.

    Args:
        episodes: Episodes of an update in the config.
    """

    def groups_of(n: int) -> tuple[str, str]:
        return (f"algorithm.group_size={n}", f"algorithm.n_groups={episodes // n}")

    return {
        "as it is": (),
        "outcome": ("algorithm.advantage=outcome",),
        "process": ("algorithm.advantage=process",),
        "linear": ("algorithm.advantage=linear",),
        "reinforce": ("algorithm.advantage=reinforce",),
        "alive peers only": ("algorithm.alive_peers_only=true",),
        "groups of 4": groups_of(4),
        "groups of 8": groups_of(8),
        "groups of 8, same start": (*groups_of(8), "algorithm.same_start=true"),
        "groups of 8, scaling group": (*groups_of(8), "algorithm.scaling=group"),
        "groups of 8, dynamic sampling": (*groups_of(8), "algorithm.dynamic_sampling=true"),
        "groups of 16": groups_of(16),
        "scaling none": ("algorithm.scaling=none",),
        "full batch": ("algorithm.batch_size=1000000",),
        "minibatch 64": ("algorithm.batch_size=64",),
        "minibatch 1024": ("algorithm.batch_size=1024",),
        "half the episodes": (f"algorithm.group_size={episodes // 2}",),
        "twice the episodes": (f"algorithm.group_size={2 * episodes}",),
        "entropy 0": ("algorithm.ent_coef=0.0",),
        "entropy 0.01": ("algorithm.ent_coef=0.01",),
        "mask": ("algorithm.truncation=mask",),
        "no overlap": ("algorithm.overlap=false",),
        "episode weights": ("algorithm.weighting=episode",),
        "clip higher": ("algorithm.clip_range_high=0.28",),
    }


def _ablation() -> list[Case]:
    cases = []
    for env, episodes, steps in (("cartpole", 16, 150_000), ("lunar_lander", 32, 750_000)):
        budget = (f"budget.total_timesteps={steps}", f"evaluation.every_steps={steps // 15}")
        for name, overrides in _variants(episodes).items():
            cases.append(Case(ABLATION, f"{env}: {name}", f"{env}_grpo", (*budget, *overrides)))
    return cases


CASES = [
    *_against_others("cartpole", 150_000, "every seed ≥ 475"),
    *_against_others("acrobot", 500_000, "IQM ≥ -90"),
    *_against_others("pendulum", 500_000, "≥ -220"),
    *_against_others("lunar_lander", 1_500_000, "every seed ≥ 200, IQM ≥ 240"),
    *_against_others("lunar_lander_continuous", 2_000_000, "IQM ≥ 200"),
    *_against_others("mountain_car_continuous", 500_000, "as far as it goes"),
    *_ablation(),
]
SUITES = tuple(dict.fromkeys(case.suite for case in CASES))


@dataclass(frozen=True)
class SeedResult:
    """What one case gave with one seed. Returns are means over `N_EPISODES` episodes of the last policy."""

    suite: str
    case: str
    seed: int
    steps: int
    greedy: float
    greedy_std: float
    greedy_length: float
    sampled: float
    curve: list[tuple[int, float]]
    """Steps and mean greedy return of each evaluation during training."""
    wall_s: float
    cpu_s: float
    resumed: bool
    """The run was interrupted, so `wall_s` and `cpu_s` are those of its last attempt only."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all but the last unless named")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--seeds", default="20,21,22,23,24")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--train-one", nargs=2, metavar=("CASE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.train_one:
        key, seed = arguments.train_one
        train_one(next(case for case in CASES if case.key == key), int(seed))
        return 0
    if unknown := sorted(set(arguments.suites) - set(SUITES)):
        parser.error(f"unknown suite {unknown[0]!r}: choose from {', '.join(SUITES)}")
    failed = 0
    if not arguments.report_only:
        suites = arguments.suites or SUITES[:-1]
        cases = [case for case in CASES if case.suite in suites and arguments.only in case.name]
        pairs = [(case, int(seed)) for case in cases for seed in arguments.seeds.split(",")]
        wanted = {_record(case, seed): ("--train-one", case.key, str(seed)) for case, seed in pairs}
        failed = train_missing("benchmarks.grpo", wanted, arguments.jobs)
    write_report()
    return 1 if failed else 0


def _record(case: Case, seed: int) -> Path:
    return RECORDS / f"{case.key}-s{seed}.json"


def train_one(case: Case, seed: int) -> None:
    """Train one case with one seed, evaluate its last policy greedily and sampled, and keep the result."""
    from rlplatform.artifacts.jsonl import read_jsonl
    from rlplatform.train.compare import newest_policy
    from rlplatform.train.evaluate import evaluate
    from rlplatform.train.policy_folder import load_policy
    from rlplatform.train.seeding import derive_seed

    record = _record(case, seed)
    overrides = [*case.overrides, f"seed={seed}", "evaluation.final_episodes=0", "checkpoint.keep_last=1"]
    training = train(record, case.config, overrides)
    spec, run_dir = training.spec, training.run_dir
    policy = load_policy(newest_policy(run_dir), spec.algorithm.name)
    base = derive_seed(seed, "grpo")
    greedy, sampled = (
        evaluate(policy, spec.env, n_episodes=N_EPISODES, seed=base, deterministic=greedily)
        for greedily in (True, False)
    )
    curve = [
        (int(line["step"]), float(line["return_mean"]))
        for line in read_jsonl(run_dir.evaluations_path)
        if line["purpose"] == "evaluation"
    ]
    result = SeedResult(
        case.suite, case.name, seed, training.step, greedy.return_mean, greedy.return_std, greedy.length_mean,
        sampled.return_mean, curve, training.wall_s, training.cpu_s, training.resumed,
    )  # fmt: skip
    write_json(record, asdict(result))


# --- the page ---------------------------------------------------------------------------------------------------------


def write_report() -> None:
    """Write the page from the records."""
    by_case: dict[tuple[str, str], list[SeedResult]] = {}
    for record in read_records(RECORDS, SeedResult):
        by_case.setdefault((record.suite, record.case), []).append(record)
    found = [(case, by_case[case.suite, case.name]) for case in CASES if (case.suite, case.name) in by_case]
    rows = [_row(case, results) for case, results in found if case.suite != ABLATION]
    cells = [_cell(case, results) for case, results in found if case.suite == ABLATION]
    figures = "\n".join(f"![{suite}](grpo_{suite}.svg)" for suite in SUITES[:-1] if _draw(suite, by_case))
    write_page(
        PAGE,
        "GRPO against PPO and REINFORCE",
        "python -m benchmarks.grpo",
        f"""
Each row is a file of `configs/train`, with what `benchmarks/grpo.py` says differs, trained by the platform's `Trainer`,
one run for each seed. Measured is the *last* policy, over {N_EPISODES} episodes on the true return, greedy and
sampled. IQM is the interquartile mean over training seeds with a 95 % bootstrap interval (Agarwal et al., 2021, arXiv
2108.13264). Every environment step is counted, those of idle environments too. REINFORCE is GRPO with the batch's mean
return-to-go as its only baseline.

| Suite | Case | Steps | Seeds | Greedy: IQM [95 % CI] | Worst seed | Sampled: IQM | CPU min | Must show |
|---|---|---:|---:|---:|---:|---:|---:|---|
{chr(10).join(rows)}

{figures}

## Ablation

What each setting is worth: one is changed at a time, on three seeds, in 150,000 steps on CartPole and 750,000, half of
what the suite above has, on LunarLander. *Along the way* is the mean greedy return of all evaluations during training:
it tells fast from slow where all end at the top. Made by `python -m benchmarks.grpo ablation --seeds 21,22,23`.

| Environment: setting | Greedy, mean | Each seed | Sampled, mean | Along the way |
|---|---:|---|---:|---:|
{chr(10).join(cells)}

{describe_machine()}
""",
    )


def _row(case: Case, results: list[SeedResult]) -> str:
    greedy = interquartile_mean([result.greedy for result in results])
    sampled = interquartile_mean([result.sampled for result in results])
    cpu = minutes([result.cpu_s for result in results if not result.resumed])
    return (
        f"| {case.suite} | {case.name} | {results[0].steps:,} | {len(results)} | "
        f"{interval(greedy)} | {min(r.greedy for r in results):.1f} | "
        f"{sampled.value:.1f} | {cpu} | {case.bar} |"
    )


def _cell(case: Case, results: list[SeedResult]) -> str:
    along = np.mean([np.mean([value for _, value in result.curve]) for result in results])
    return (
        f"| {case.name} | {np.mean([r.greedy for r in results]):.1f} | "
        f"{', '.join(f'{result.greedy:.0f}' for result in results)} | "
        f"{np.mean([result.sampled for result in results]):.1f} | {along:.0f} |"
    )


def _draw(suite: str, by_case: dict[tuple[str, str], list[SeedResult]]) -> bool:
    """Draw the learning curves of a suite's cases: interquartile mean over seeds, with its 95 % interval."""
    cases = {name: results for (of, name), results in by_case.items() if of == suite}
    if not cases:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    for name, results in sorted(cases.items()):
        last = min(result.curve[-1][0] for result in results)
        first = max(result.curve[0][0] for result in results)
        grid = np.linspace(first, last, 15)
        # Evaluations come at the ends of rollouts, which differ between seeds.
        at_grid = [np.interp(grid, *np.array(result.curve).T) for result in results]
        estimates = [interquartile_mean(list(map(float, values))) for values in zip(*at_grid, strict=True)]
        axes.plot(grid, [estimate.value for estimate in estimates], label=name)
        axes.fill_between(grid, [e.low for e in estimates], [e.high for e in estimates], alpha=0.2)
    axes.set(xlabel="environment steps", ylabel="greedy return", title=suite.replace("_", " "))
    axes.legend()
    figure.tight_layout()
    figure.savefig(PAGE.parent / f"grpo_{suite}.svg")
    plt.close(figure)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
