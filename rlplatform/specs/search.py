"""SearchSpec: everything that one search for hyper-parameters is asked to be.

A *search* trains many *trials*: runs of one base spec that differ in the parameters of its space. A trial has one run
for each of the objective's seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field, field_validator

from rlplatform.names import EVAL_LENGTH_MEAN, EVAL_RETURN_MEAN, EVAL_SUCCESS_RATE
from rlplatform.specs.base import Spec
from rlplatform.specs.load import Layers, put, validate
from rlplatform.specs.one_of import tagged
from rlplatform.specs.run import Name, RunSpec, Seed
from rlplatform.specs.search_schedulers import NoScheduler, PB2Scheduler, PBTScheduler, SchedulerSpec
from rlplatform.specs.search_space import Point, Space, grid_points

OBJECTIVE_METRICS = (EVAL_RETURN_MEAN, EVAL_SUCCESS_RATE, EVAL_LENGTH_MEAN)
"""What evaluations report and trials can be compared by."""
SAMPLERS = ("random", "grid", "tpe", "gp", "cmaes")


class SamplerSpec(Spec):
    """What proposes the trials."""

    name: Literal["random", "grid", "tpe", "gp", "cmaes"] = "random"
    """`random`; `grid`: every point; or what Optuna learns from the trials before: a tree-structured Parzen estimator
    (`tpe`), a Gaussian process (`gp`), or CMA-ES (`cmaes`, numbers only)."""
    n_startup: Annotated[int, Field(ge=1)] = 10
    """`tpe`, `gp`, `cmaes`: trials drawn at random before the sampler learns."""


class ObjectiveSpec(Spec):
    """What makes one trial better than another."""

    metric: str = EVAL_RETURN_MEAN
    """What is compared: `eval/return_mean`, `eval/success_rate` or `eval/length_mean`."""
    mode: Literal["max", "min"] = "max"
    """Which end of it is good."""
    of: Literal["best", "last"] = "best"
    """Which evaluation during training speaks for a trial: its best so far, or its newest."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    """Seeds that every trial trains side by side; its value is their mean, from four on their interquartile mean.
    None: only the run's own."""

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError(f"must hold each seed once, got {list(seeds)}. Remove what stands twice")
        return seeds


class SearchBudget(Spec):
    """How much a search may train."""

    trials: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Trials at most; of PBT and PB2 the population."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Environment steps of all trials and seeds together, after which no trial goes on. None: no limit."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock hours of one attempt, after which the search stops and can be resumed. None: no limit."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials that train at once. None: as many as the cluster has room for."""


class SearchSpec(Spec):
    """One search: a base run, a space, and how the space is searched."""

    run: RunSpec
    """What every trial trains, but for the parameters of the space."""
    space: Annotated[Space, Field(min_length=1)]
    """Parameters that trials choose, by dotted path such as `algorithm.learning_rate`, each with what it may be."""
    sampler: Annotated[SamplerSpec, tagged("name", "sampler", SAMPLERS)] = SamplerSpec()
    scheduler: SchedulerSpec = NoScheduler()
    """What stops trials early, or breeds them."""
    objective: ObjectiveSpec = ObjectiveSpec()
    budget: SearchBudget = SearchBudget()
    name: Name | None = None
    """What the search is called in lists. None: `<env>-<algorithm>-<sampler>[-<scheduler>]`."""
    seed: Seed = 0
    """Seed of the sampler and the scheduler; trials have the objective's seeds."""

    @field_validator("space", mode="before")
    @classmethod
    def _not_empty(cls, space: object) -> object:
        if space is None or space == {}:
            example = "`algorithm.learning_rate: {type: loguniform, low: 1e-5, high: 1e-2}`"
            raise ValueError(f"must have a parameter to search, got none. Add for example {example}")
        return space

    @property
    def title(self) -> str:
        """The search's name, or one made of what it searches and how."""
        scheduler = "" if self.scheduler.name == "none" else f"-{self.scheduler.name}"
        return self.name or f"{self.run.title}-{self.sampler.name}{scheduler}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of every trial."""
        return self.objective.seeds or (self.run.seed,)

    @property
    def n_trials(self) -> int:
        """How many trials there are at most: a grid may have fewer points than the budget allows."""
        if self.sampler.name != "grid":
            return self.budget.trials
        return sum(1 for _ in islice(grid_points(self.space), self.budget.trials))

    @property
    def max_steps(self) -> int:
        """Environment steps that a run of a trial trains when nothing stops it."""
        asked: int | None = getattr(self.scheduler, "max_steps", None)
        return asked or self.run.budget.total_timesteps

    @property
    def mutations(self) -> tuple[str, ...]:
        """The parameters that PBT or PB2 changes; none with another scheduler."""
        if not isinstance(self.scheduler, PBTScheduler | PB2Scheduler):
            return ()
        return self.scheduler.mutations or tuple(self.space)


def apply_point(run: RunSpec, point: Point, source: str, origins: Mapping[str, str] | None = None) -> RunSpec:
    """Return the spec of a run with a point's values in it.

    Args:
        run: The base.
        point: Values by dotted path.
        source: What errors call the point, such as a trial's id.
        origins: Where a parameter was written, by dotted path. None: `source` for all.

    Raises:
        SpecError: The run does not take a value; the message names the parameter.
    """
    layers = Layers(source, run.model_dump(mode="json"))
    for path, value in point.items():
        put(layers, tuple(path.split(".")), value, (origins or {}).get(path, source))
    return validate(RunSpec, layers)
