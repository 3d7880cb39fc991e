"""The pages of `benchmarks.schedulers`: what its records say, with intervals."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.page import ROOT, describe_machine, write_page
from benchmarks.schedulers_studies import HOME, N_EPISODES, STUDIES, Member, Outcome
from rlplatform.report.statistics import Estimate, bootstrap
from rlplatform.specs.search_space import Choice, Dimension

RESULTS = ROOT / "docs" / "results"
MOST_SHARE = 0.4
"""Share of random search's steps that ASHA may take, by the promise."""
LEAST_PAIRS = 5

Pair = tuple[Outcome, Outcome]
"""What two sides came to with one search seed."""


def write_page_of(study: str) -> None:
    """Write a study's page from the records of the seeds of which both sides are there."""
    _, *others = STUDIES[study].sides
    pairs = {side: found for side in others if (found := read_pairs(study, side, HOME / "records"))}
    if not pairs:
        raise SystemExit(f"{study}: no seed has records of both sides yet.")
    if study == "pbt":
        _write_pbt(pairs)
    else:
        _write_asha(study, pairs)


def read_pairs(study: str, side: str, folder: Path) -> list[Pair]:
    """Return the outcomes of a study's first side and of another one, by seed.

    Raises:
        ValueError: The sides of a seed did not begin with the same points.
    """
    first, second = _read(study, next(iter(STUDIES[study].sides)), folder), _read(study, side, folder)
    pairs = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
    for one, other in pairs:
        for a, b in zip(one.members, other.members, strict=True):
            if b.generation == 0 and a.point != b.point:  # a bred member's point is no longer the one it began with
                raise ValueError(f"{study}, seed {one.seed}, trial {a.number}: {a.point} against {b.point}")
    return pairs


def _read(study: str, side: str, folder: Path) -> dict[int, Outcome]:
    outcomes = {}
    for path in folder.glob(f"{study}-{side}-s*.json"):
        data = json.loads(path.read_text())
        members = [Member(**member) for member in data.pop("members")]
        outcomes[data["seed"]] = Outcome(**data, members=members)
    return outcomes


# --- numbers ----------------------------------------------------------------------------------------------------------


def mean_of(values: Sequence[float]) -> Estimate:
    """Return the mean with its 95 % bootstrap interval."""
    return bootstrap([values], lambda samples: np.asarray(samples.mean(axis=1)))


def ratio_of(pairs: Sequence[Pair]) -> Estimate:
    """Return the second side's steps over the first side's, with an interval over search seeds."""
    return mean_of([other.steps / one.steps for one, other in pairs])


def best_return(outcome: Outcome) -> Estimate:
    """Return the held-out return of the trial that a search found best, with an interval over episodes."""
    returns = outcome.members[outcome.best].returns
    assert returns is not None
    return mean_of(returns)


def chance_of(first: Outcome, second: Outcome) -> float:
    """Return how likely it is that the first side's trials hold one as good as the second's best in as many steps.

    Drawn are as many whole trials of the first side as the second's steps pay for; good is meant by what the searches
    themselves compare trials by.
    """
    trials = first.members
    paid = second.steps * len(trials) // first.steps
    best = second.members[second.best].value
    assert best is not None
    worse = sum(trial.value is None or trial.value < best for trial in trials)
    return 1 - math.comb(worse, paid) / math.comb(len(trials), paid)


def population_return(outcome: Outcome) -> float:
    """Return the mean held-out return of all trials."""
    return fmean(fmean(member.returns) for member in outcome.members if member.returns is not None)


def _difference(pairs: Sequence[Pair], measure: Callable[[Outcome], float]) -> Estimate:
    return mean_of([measure(other) - measure(one) for one, other in pairs])


def _shown(estimate: Estimate, form: str = ".1f") -> str:
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _cost(outcome: Outcome) -> str:
    return f"{outcome.wall_s:.0f} / {'—' if outcome.cpu_s is None else f'{outcome.cpu_s:.0f}'}"


def _space(study: str) -> str:
    def told(dimension: Dimension) -> str:
        if isinstance(dimension, Choice):
            return f"one of {', '.join(map(str, dimension.values))}"
        low, high = dimension.extremes()
        return f"{dimension.type} from {low:g} to {high:g}"

    spec = STUDIES[study].spec(next(iter(STUDIES[study].sides)), 0)
    return "; ".join(f"`{path.removeprefix('algorithm.')}` {told(dimension)}" for path, dimension in spec.space.items())


# --- the pages --------------------------------------------------------------------------------------------------------


def _write_asha(study: str, pairs_of: Mapping[str, Sequence[Pair]]) -> None:
    spec = STUDIES[study].spec("asha", 0)
    scheduler, run = spec.scheduler.model_dump(), spec.run
    factors = {side: STUDIES[study].spec(side, 0).scheduler.model_dump()["reduction_factor"] for side in pairs_of}
    rungs = "; ".join(
        f"with `reduction_factor: {factor}` at {_rungs(spec.max_steps, scheduler['grace_steps'], factor)} steps"
        for factor in factors.values()
    )
    rows = [
        f"| {random.seed} | {factors[side]} | {_shown(best_return(random))} | {_shown(best_return(asha))} "
        f"| {'the same' if random.best == asha.best else 'another'} | {random.steps:,} | {asha.steps:,} "
        f"| {asha.steps / random.steps:.2f} | {chance_of(random, asha):.2f} | {sum(m.whole for m in asha.members)} "
        f"| {_cost(random)} | {_cost(asha)} |"
        for side, pairs in pairs_of.items()
        for random, asha in pairs
    ]
    setting = f"""
{spec.n_trials} trials of PPO on {run.env.id} with {run.env.n_envs} environments, at most {spec.max_steps:,} steps each,
{spec.budget.concurrent} at a time. Random search trains every trial to its end; ASHA compares them, {rungs}. A search
seed draws the points and trains the trials, the same for all (checked). Space: {_space(study)}.
"""
    measured = f"""
Each search's best trial is the one whose last evaluation during training ({run.evaluation.n_episodes} episodes) is
highest. Its last policy is then measured over {N_EPISODES} episodes that no search has seen, so that being lucky in the
comparison does not count; the interval is a 95 % bootstrap over these episodes. Steps are environment steps of
training, over all trials.
"""
    write_page(
        RESULTS / f"{study}.md",
        "ASHA against random search",
        f"python -m benchmarks.schedulers {study} --seeds {_seeds(pairs_of)}",
        f"""
{_filled(setting)}

{_filled(measured)}

| Search seed | Factor | Random: best return | ASHA: best return | Trial | Random: steps | ASHA: steps | Ratio \
| Chance | Whole trials | Random: wall / CPU s | ASHA: wall / CPU s |
|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

{chr(10).join(_asha_found(factors[side], pairs) for side, pairs in pairs_of.items())}

{ASHA_NOTE}

{describe_machine()}
""",
    )


def _asha_found(factor: int, pairs: Sequence[Pair]) -> str:
    share, gain = ratio_of(pairs), _difference(pairs, lambda outcome: best_return(outcome).value)
    within = sum(best_return(asha).value >= best_return(random).low for random, asha in pairs)
    return (
        f"* **Factor {factor}**: {_shown(share, '.2f')} of random search's steps, where the promise is at most "
        f"{MOST_SHARE:.2f}. The best return\n  is {_shown(gain, '+.1f')} over random search's, and within or above the "
        f"interval of random search's best with {within} of {len(pairs)}\n  search seeds."
    )


ASHA_NOTE = """\
*Chance* is that of a random search with ASHA's steps: how likely as many whole trials as these pay for, drawn from the
32, hold one whose value is not below that of ASHA's best. Where many points are good, a few of them are enough. *Whole
trials* are those that ASHA let train to the end. It decides as soon as a trial reaches a rung, from those that came
there before: nobody waits, and the first trials go on although later ones turn out better. The fewer trials run at
once, the more is known when one is judged."""


def _rungs(most: int, grace: int, factor: int) -> str:
    rungs = [grace]
    while rungs[-1] * factor < most:
        rungs.append(rungs[-1] * factor)
    return " and ".join(", ".join(f"{rung:,}" for rung in rungs).rsplit(", ", 1))


def _write_pbt(pairs_of: Mapping[str, Sequence[Pair]]) -> None:
    pairs = pairs_of["pbt"]
    spec = STUDIES["pbt"].spec("pbt", 0)
    scheduler, run = spec.scheduler.model_dump(), spec.run
    quantile = math.ceil(spec.n_trials * scheduler["quantile_fraction"])
    mutated = " and ".join(f"`{path.removeprefix('algorithm.')}`" for path in spec.mutations)
    best = _difference(pairs, lambda outcome: best_return(outcome).value)
    whole = _difference(pairs, population_return)
    rows = [
        f"| {alone.seed} | {best_return(alone).value:.1f} | {best_return(pbt).value:.1f} "
        f"| {best_return(pbt).value - best_return(alone).value:+.1f} | {population_return(alone):.1f} "
        f"| {population_return(pbt):.1f} | {population_return(pbt) - population_return(alone):+.1f} "
        f"| {sum(member.generation for member in pbt.members)} | {pbt.steps / alone.steps:.2f} "
        f"| {_cost(alone)} | {_cost(pbt)} |"
        for alone, pbt in pairs
    ]
    setting = f"""
A population of {spec.n_trials} trains PPO on {run.env.id} with {run.env.n_envs} environments for {spec.max_steps:,}
steps each, {spec.budget.concurrent} at a time. With PBT, at every {scheduler["every_steps"]:,} steps the worst
{quantile} become copies of the best {quantile} and change their {mutated}; without, everyone goes on as it began. A
search seed draws the points and trains the trials, the same for both. Space: {_space("pbt")}.
"""
    measured = f"""
Measured is the last policy of every trial, over {N_EPISODES} episodes that no search has seen. *Best* is the trial that
the search itself found best by its last evaluation ({run.evaluation.n_episodes} episodes); *mean* is over the
population. Intervals are 95 % bootstrap intervals over the pairs.
"""
    write_page(
        RESULTS / "pbt.md",
        "PBT against the same population left alone",
        f"python -m benchmarks.schedulers pbt --seeds {_seeds(pairs_of)}",
        f"""
{_filled(setting)}

{_filled(measured)}

| Search seed | Best alone | Best, PBT | Difference | Mean alone | Mean, PBT | Difference | Copies | Steps, ratio \
| Alone: wall / CPU s | PBT: wall / CPU s |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

* **Best of the population**: PBT is {_shown(best, "+.1f")} over the population left alone. {_verdict(best, pairs)}
* **Mean of the population**: PBT is {_shown(whole, "+.1f")}. {_verdict(whole, pairs)}

{describe_machine()}
""",
    )


def _verdict(difference: Estimate, pairs: Sequence[Pair]) -> str:
    if len(pairs) < LEAST_PAIRS:
        return f"With fewer than {LEAST_PAIRS} pairs that says little."
    if difference.low > 0:
        return "PBT is better."
    return "PBT is worse." if difference.high < 0 else "The interval holds 0: these pairs cannot tell."


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False)


def _seeds(pairs_of: Mapping[str, Sequence[Pair]]) -> str:
    return ",".join(map(str, sorted({one.seed for pairs in pairs_of.values() for one, _ in pairs})))
