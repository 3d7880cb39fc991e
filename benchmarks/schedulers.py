"""Measures what the schedulers of searches are worth: ASHA against random search, PBT against a population left alone.

    python -m benchmarks.schedulers asha                 writes docs/results/asha.md
    python -m benchmarks.schedulers asha_long            the same with twice the steps a trial
    python -m benchmarks.schedulers pbt                  writes docs/results/pbt.md
    python -m benchmarks.schedulers pbt --seeds 0,1
    python -m benchmarks.schedulers asha --report-only   write the page again from the records

A study runs one search with two schedulers, over search seeds: a seed draws the points and trains the trials, so both
sides of a pair begin alike. Each search is a process of its own, with a Ray of its own. What is finished is not
repeated, and what was interrupted goes on. What a search chose is measured on episodes that no search has seen.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.schedulers_pages import write_page_of
from benchmarks.schedulers_studies import CONCURRENT, N_EPISODES, ROOT, STUDIES, Member, Outcome, home, record_path
from benchmarks.sweep import cpu_seconds
from rlplatform.artifacts.atomic import write_json
from rlplatform.artifacts.search_dir import SearchDir, list_searches
from rlplatform.artifacts.search_record import TrialRecord
from rlplatform.names import SEARCHES_DIR
from rlplatform.specs.search import SearchSpec

_ALONE = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
"""Ray runs its workers at niceness 15, where whatever else the machine does goes first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing of a study, then write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", default="0,1,2,3,4", help="search seeds")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--search-one", nargs=2, metavar=("SIDE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.search_one:
        side, seed = arguments.search_one
        return search_one(arguments.study, side, int(seed))
    if not arguments.report_only:
        for seed in map(int, arguments.seeds.split(",")):
            for side in STUDIES[arguments.study].sides:
                run_and_measure(arguments.study, side, seed)
    write_page_of(arguments.study)
    return 0


def search_one(study: str, side: str, seed: int) -> int:
    """Run a search, or go on with it."""
    from rlplatform.cluster.runner import RayOptions
    from rlplatform.tune.run import resume_search, run_search

    folder, options = home(study, side, seed), RayOptions(num_cpus=CONCURRENT)
    if begun := list_searches(folder):
        result = resume_search(SearchDir(folder / SEARCHES_DIR / begun[0].id), options)
    else:
        result = run_search(STUDIES[study].spec(side, seed), folder, options)
    print(f"{result.search_id}: {result.state}, {result.reason}")
    return 0 if result.state == "completed" else 1


def run_and_measure(study: str, side: str, seed: int) -> None:
    """Run a search in a process of its own, evaluate what it chose, and keep both; nothing if that was done."""
    record = record_path(study, side, seed)
    if record.exists():
        return
    folder = home(study, side, seed)
    begun = bool(list_searches(folder))
    command = [sys.executable, "-m", "benchmarks.schedulers", study, "--search-one", side, str(seed)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **_ALONE})
    cpu_s = cpu_seconds(process)
    if process.returncode:
        raise SystemExit(f"{study}, {side}, seed {seed}: {folder} says why it did not end. The same command goes on.")
    outcome = measure(study, side, seed, None if begun else cpu_s)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, asdict(outcome))
    print(f"{study} {side} {seed}: {outcome.steps:,} steps, {outcome.wall_s:.0f} s, {cpu_s:.0f} CPU s", flush=True)


def measure(study: str, side: str, seed: int, cpu_s: float | None) -> Outcome:
    """Return what an ended search came to."""
    folder = home(study, side, seed)
    search = SearchDir(folder / SEARCHES_DIR / list_searches(folder)[0].id)
    record, spec, every = search.read(), search.spec(), STUDIES[study].measures_all
    if record.best_trial is None:
        raise SystemExit(f"{search.path}: no trial has a value.")
    members = [
        Member(
            number=trial.number,
            point=dict(trial.point),
            steps=trial.trained_steps,
            whole=trial.state == "completed",
            generation=trial.generation,
            value=trial.score(spec.objective),
            returns=_held_out(search, spec, trial) if every or trial.trial_id == record.best_trial else None,
        )
        for trial in search.trials()
    ]
    return Outcome(study, side, seed, record.elapsed_s, cpu_s, int(record.best_trial), members)


def _held_out(search: SearchDir, spec: SearchSpec, trial: TrialRecord) -> list[float]:
    """Return the returns of a trial's policy, that of its value, over episodes that are the same for all trials."""
    from rlplatform.train.compare import newest_policy
    from rlplatform.train.evaluate import evaluate
    from rlplatform.train.policy_folder import load_policy
    from rlplatform.train.seeding import derive_seed

    run = search.runs(trial)[0]
    folder = run.best_path if spec.objective.of == "best" else newest_policy(run)
    policy = load_policy(folder, spec.run.algorithm.name)
    seed = derive_seed(spec.seed, "schedulers")
    return list(evaluate(policy, run.spec().env, n_episodes=N_EPISODES, seed=seed).returns)


if __name__ == "__main__":
    raise SystemExit(main())
