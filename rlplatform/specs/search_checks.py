"""What can be refused of a search before anything starts: every reason, each with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import sqrt
from random import Random
from typing import Any

from pydantic import ValidationError

from rlplatform.errors import SpecError, did_you_mean
from rlplatform.names import EVAL_SUCCESS_RATE
from rlplatform.specs.problems import joined, shown, written_at
from rlplatform.specs.search import OBJECTIVE_METRICS, SearchSpec, apply_point
from rlplatform.specs.search_schedulers import (
    ASHAScheduler,
    HyperBandScheduler,
    MedianScheduler,
    PB2Scheduler,
    PBTScheduler,
)
from rlplatform.specs.search_space import Choice, Dimension, Grid, LogUniform, Uniform, grid_points, wanted
from rlplatform.specs.yaml_text import Path

MOST_GRID_POINTS = 100_000
POINTS_TRIED = 200
"""Points of a space that are checked as a whole: about 0.1 s."""
_WITHIN = 1 / sqrt(7)
"""Where in a range of real numbers one is tried that is hardly ever whole."""
_SHARED = {
    "budget": "what a trial trains is the search's budget and its scheduler",
    "seed": "list seeds in `objective.seeds`",
    "evaluation": "trials are compared by it",
    "resources": "trials share their workers",
    "early_stop": "stopping trials is the scheduler's",
    "init_from": "trials start alike",
    "checkpoint": "it changes nothing that a trial learns",
    "tracking": "it changes nothing that a trial learns",
    "name": "it changes nothing that a trial learns",
    "algorithm.name": "algorithms have other options; compare them with `rlplatform compare`",
    "env.id": "returns of two environments do not compare",
    "env.backend": "trials share their workers",
    "env.n_workers": "trials share their workers",
    "env.state": "it changes nothing that a trial learns",
}
"""Parameters that are the same in all trials, and why."""


@dataclass(frozen=True)
class _Search:
    """A search, and where its parts were written."""

    spec: SearchSpec
    origins: Mapping[Path, str] = field(default_factory=dict)
    source: str = "the search"

    def at(self, *path: str | int) -> str:
        return written_at(path, self.origins, self.source)


def check_search(spec: SearchSpec, *, origins: Mapping[Path, str] | None = None, source: str = "the search") -> None:
    """Check all that can be known of a search before anything starts.

    Args:
        spec: The search.
        origins: Where each part was written, by its path; parts of the base run below ``("run",)``.
        source: What errors call the search where no part is to blame.

    Raises:
        SpecError: A parameter does not exist or cannot be searched, a value is none that the run takes, the sampler or
            the scheduler cannot work with the space, nothing would be reported to compare trials by, or the budget
            does not hold a trial. The message names every reason.
    """
    search = _Search(spec, origins or {}, source)
    problems = [
        problem
        for check in (_parameters, _conditions, _sampler, _objective, _budget, _scheduler, _mutations)
        for problem in check(search)
    ]
    problems = problems or list(_points(search))
    if problems:
        raise joined(problems)


# --- the space --------------------------------------------------------------------------------------------------------


def _parameters(search: _Search) -> Iterator[str]:
    """Each parameter by itself: it exists, may differ between trials, and takes what its dimension holds."""
    space = search.spec.space
    for path, dimension in space.items():
        where = search.at("space", path)
        shared = _SHARED.get(path, _SHARED.get(path.partition(".")[0]))
        if shared:
            yield f"{where}: `{path}` is the same in every trial: {shared}. Set it in the run."
            continue
        outer = next((other for other in space if path.startswith(f"{other}.")), None)
        if outer is not None:
            yield f"{where}: `{path}` is a part of `{outer}`, which is searched as a whole. Keep one of them."
        yield from islice(_refused(search, path, dimension), 1)


def _refused(search: _Search, path: str, dimension: Dimension) -> Iterator[str]:
    where = search.at("space", path)
    for value in _probes(dimension):
        try:
            apply_point(search.spec.run, {path: value}, where)
        except SpecError as err:
            if _is_of_one_field(err, path):
                yield str(err)


def _is_of_one_field(error: SpecError, path: str) -> bool:
    """Return whether a run's error is of this field, not of how fields fit together: other dimensions can mend that."""
    if not isinstance(error.__cause__, ValidationError):
        return True
    parts = path.split(".")
    return any([str(part) for part in found["loc"]][: len(parts)] == parts for found in error.__cause__.errors())


def _probes(dimension: Dimension) -> list[Any]:
    """Return the values that speak for all: the ends, and of real numbers one that is not whole."""
    inner: list[float] = []
    if isinstance(dimension, LogUniform):
        inner = [dimension.low * (dimension.high / dimension.low) ** _WITHIN]
    elif isinstance(dimension, Uniform):
        inner = [dimension.low + (dimension.high - dimension.low) * _WITHIN]
    return [*dimension.extremes(), *inner]


def _conditions(search: _Search) -> Iterator[str]:
    above: dict[str, Dimension] = {}
    for path, dimension in search.spec.space.items():
        for other, values in dimension.when.items():
            where = search.at("space", path, "when", other)
            if other not in above:
                hint = "Move it up." if other in search.spec.space and other != path else did_you_mean(other, above)
                yield f"{where}: `when` of `{path}` looks at `{other}`, which is no dimension above it. {hint}"
                continue
            for value in wanted(values):
                if not above[other].contains(value):
                    yield (
                        f"{where}: `when` of `{path}` waits for `{other}` to be {shown(value)}, which it never is. "
                        "Use a value of that dimension."
                    )
        above[path] = dimension


def _points(search: _Search) -> Iterator[str]:
    """Check that the values of several parameters go together, at points spread over the space."""
    spec = search.spec
    origins = {path: search.at("space", path) for path in spec.space}
    tried, errors = 0, []
    for point in _spread(spec):
        tried += 1
        try:
            apply_point(spec.run, point, search.at("space"), origins)
        except SpecError as err:
            errors.append(str(err))
    if errors:
        yield (
            f"{errors[0]} Every point of the space must be a run; {len(errors)} of the {tried} that were tried are "
            "refused. Narrow the ranges, or make one parameter depend on another with `when`."
        )


def _spread(spec: SearchSpec) -> Iterator[dict[str, Any]]:
    if spec.sampler.name == "grid":
        yield from islice(grid_points(spec.space), POINTS_TRIED)
        return
    rng = Random(0)
    for _ in range(POINTS_TRIED):
        point: dict[str, Any] = {}
        for path, dimension in spec.space.items():
            if dimension.is_active(point):
                options = dimension.options()
                # Ends are where values stop fitting together, so every second value is one.
                point[path] = rng.choice(_probes(dimension) if options is None or rng.random() < 0.5 else options)
        yield point


# --- what proposes trials ---------------------------------------------------------------------------------------------


def _sampler(search: _Search) -> Iterator[str]:
    spec, name = search.spec, search.spec.sampler.name
    where = search.at("sampler")
    yield from _grid(search) if name == "grid" else ()
    if name not in {"tpe", "gp", "cmaes"}:
        return
    for path, dimension in spec.space.items():
        at = search.at("space", path)
        if isinstance(dimension, Grid):
            yield f"{at}: `{path}` is a grid, of which `{name}` cannot try every value. Use `type: choice`."
        elif name == "cmaes" and isinstance(dimension, Choice):
            yield f"{at}: `{path}` is a choice, and `cmaes` searches numbers only. Use the sampler `tpe`, or a range."
        if name != "tpe" and dimension.when:
            yield f"{at}: `{path}` depends on another parameter, which `{name}` cannot do. Use `tpe` or `random`."
    if name == "cmaes" and len(spec.space) == 1:
        yield f"{where}: `cmaes` needs two parameters or more, the space has one. Use the sampler `tpe`."
    if spec.sampler.n_startup >= spec.budget.trials:
        yield (
            f"{search.at('sampler', 'n_startup')}: `sampler.n_startup` must be below `budget.trials` = "
            f"{spec.budget.trials}, got {spec.sampler.n_startup}: `{name}` would never learn. Use "
            f"{max(1, spec.budget.trials // 4)}, or the sampler `random`."
        )


def _grid(search: _Search) -> Iterator[str]:
    spec = search.spec
    endless = [path for path, dimension in spec.space.items() if dimension.options() is None]
    for path in endless:
        yield (
            f"{search.at('space', path)}: `{path}` is a {spec.space[path].type}, whose values the sampler `grid` "
            "cannot count. Use `type: grid` with its values, or the sampler `random`."
        )
    points = 0 if endless else sum(1 for _ in islice(grid_points(spec.space), MOST_GRID_POINTS + 1))
    if points > spec.budget.trials:
        count = f"more than {MOST_GRID_POINTS:,}" if points > MOST_GRID_POINTS else f"{points:,}"
        yield (
            f"{search.at('budget', 'trials')}: the grid has {count} points, `budget.trials` is {spec.budget.trials:,}. "
            "Raise it, shorten the lists, or use the sampler `random`."
        )


# --- what compares and stops them -------------------------------------------------------------------------------------


def _objective(search: _Search) -> Iterator[str]:
    spec, metric = search.spec, search.spec.objective.metric
    every = spec.run.evaluation.every_steps
    if metric not in OBJECTIVE_METRICS:
        where = search.at("objective", "metric")
        yield f"{where}: `objective.metric` {metric!r} is never reported. {did_you_mean(metric, OBJECTIVE_METRICS)}"
    elif metric == EVAL_SUCCESS_RATE and spec.run.evaluation.success_threshold is None:
        yield (
            f"{search.at('objective', 'metric')}: `{metric}` needs the return from which an episode is a success. Set "
            "the run's `evaluation.success_threshold`."
        )
    if every is None or every > spec.max_steps:
        got = "none" if every is None else f"{every:,}"
        yield (
            f"{search.at('run', 'evaluation', 'every_steps')}: `{metric}` is never reported: the run's "
            f"`evaluation.every_steps` must be at most the {spec.max_steps:,} steps of a trial, got {got}. Set it, for "
            f"example to {max(1, spec.max_steps // 10):,}."
        )


def _budget(search: _Search) -> Iterator[str]:
    spec = search.spec
    whole = spec.max_steps * len(spec.seeds)
    if spec.budget.steps is not None and spec.budget.steps < whole:
        yield (
            f"{search.at('budget', 'steps')}: `budget.steps` must hold one trial of {whole:,} steps, got "
            f"{spec.budget.steps:,}. Raise it, or lower the run's `budget.total_timesteps`."
        )


def _scheduler(search: _Search) -> Iterator[str]:
    spec, scheduler = search.spec, search.spec.scheduler
    total = spec.run.budget.total_timesteps
    if spec.max_steps > total:
        yield (
            f"{search.at('scheduler', 'max_steps')}: `scheduler.max_steps` must be at most the run's "
            f"`budget.total_timesteps` = {total:,}, got {spec.max_steps:,}. Leave it out."
        )
    key = "grace_steps" if isinstance(scheduler, ASHAScheduler | MedianScheduler) else "every_steps"
    first: int | None = getattr(scheduler, key, None)
    if first is not None and not (spec.run.evaluation.every_steps or 1) <= first < spec.max_steps:
        yield (
            f"{search.at('scheduler', key)}: `scheduler.{key}` must be at least the run's `evaluation.every_steps` = "
            f"{spec.run.evaluation.every_steps} and below the {spec.max_steps:,} steps of a trial, got {first:,}: "
            "trials are compared by evaluations. Change either."
        )
    needs = 1
    match scheduler:
        case ASHAScheduler() | HyperBandScheduler():
            needs = scheduler.reduction_factor
        case MedianScheduler():
            needs = scheduler.min_trials + 1
        case PBTScheduler() | PB2Scheduler():
            needs = 2
    if 0 < spec.n_trials < needs:
        yield (
            f"{search.at('budget', 'trials')}: `{scheduler.name}` needs at least {needs} trials to compare, there are "
            f"{spec.n_trials}. Raise `budget.trials`, or use the scheduler `none`."
        )


def _mutations(search: _Search) -> Iterator[str]:
    spec, scheduler = search.spec, search.spec.scheduler
    if not isinstance(scheduler, PBTScheduler | PB2Scheduler):
        return
    if spec.sampler.name not in {"random", "grid"}:
        yield (
            f"{search.at('sampler')}: `{scheduler.name}` breeds one population, drawn by `random` or `grid`; "
            f"`{spec.sampler.name}` would propose new trials. Leave the sampler out."
        )
    looked_at = {other for dimension in spec.space.values() for other in dimension.when}
    for path in spec.mutations:
        where = search.at("scheduler", "mutations")
        dimension = spec.space.get(path)
        if dimension is None:
            yield f"{where}: `scheduler.mutations` names {path!r}, which is not in the space. " + did_you_mean(
                path, spec.space
            )
        elif dimension.when or path in looked_at:
            yield f"{where}: `{path}` is part of a condition and cannot change in a trial. Leave it out of `mutations`."
        elif isinstance(scheduler, PB2Scheduler) and not isinstance(dimension, Uniform | LogUniform):
            yield (
                f"{where}: `{path}` is a {dimension.type}, and `pb2` changes real numbers only. Leave it out of "
                "`mutations`, or use the scheduler `pbt`."
            )
        else:
            yield from _fixed(search, path, dimension)


def _fixed(search: _Search, path: str, dimension: Dimension) -> Iterator[str]:
    """Say why a parameter cannot change on a live model, if it cannot."""
    run, where = search.spec.run, search.at("scheduler", "mutations")
    part, _, option = path.partition(".")
    if part != "algorithm" or option.partition(".")[0] not in run.algorithm.amendable:
        held = "its networks and buffers" if part == "algorithm" else "its environments"
        can = ", ".join(f"`algorithm.{name}`" for name in sorted(run.algorithm.amendable))
        yield (
            f"{where}: `{path}` cannot be mutated: a live model keeps what {held} were built with. It may stay in the "
            f"space; mutate only {can}."
        )
        return
    try:
        first, *others = (apply_point(run, {path: value}, where).algorithm for value in dimension.extremes())
    except SpecError:
        return  # What the run does not take is said where the dimension is; here it says nothing of live models.
    for other in others:
        try:
            first.check_amendment(other)
        except SpecError as err:
            yield f"{where}: {err}"
            return
