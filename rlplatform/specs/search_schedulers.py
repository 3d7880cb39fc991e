"""What may end a trial before its budget, or breed it: the schedulers of a search and their options.

Every number of steps is environment steps of one run, as everywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlplatform.specs.base import Spec
from rlplatform.specs.one_of import tagged

Steps = Annotated[int, Field(ge=1)]
_MaxSteps = Annotated[
    Steps | None, Field(description="Steps that a trial which is never stopped trains. None: the run's whole budget.")
]
_GraceSteps = Annotated[Steps, Field(description="Steps that every trial trains before it can be stopped.")]
_EverySteps = Annotated[Steps, Field(description="Steps between two comparisons of a trial with the others.")]
_QuantileFraction = Annotated[
    float, Field(gt=0, le=0.5, description="Share of the trials, at the bottom, that copy one of as many at the top.")
]
_Mutations = Annotated[
    tuple[str, ...] | None,
    Field(min_length=1, description="Parameters of the space that change when a trial is copied. None: all of them."),
]
_Synchronous = Annotated[bool, Field(description="Compare only when all trials have come as far; repeatable.")]


class NoScheduler(Spec):
    """Every trial trains its whole budget."""

    name: Literal["none"] = "none"


class ASHAScheduler(Spec):
    """Asynchronous successive halving: at each rung only the best trials go on (Li et al., 2018, arXiv:1810.05934)."""

    name: Literal["asha"] = "asha"
    grace_steps: _GraceSteps
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One of this many trials goes on from a rung; the next rung is this many times as far."""
    max_steps: _MaxSteps = None


class HyperBandScheduler(Spec):
    """HyperBand: brackets of successive halving that wait for one another (Li et al., 2016, arXiv:1603.06560)."""

    name: Literal["hyperband"] = "hyperband"
    every_steps: Annotated[
        Steps, Field(description="Steps of one unit of HyperBand's resource; the shortest trial trains this far.")
    ]
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One of this many trials goes on when a bracket is halved."""
    max_steps: _MaxSteps = None


class MedianScheduler(Spec):
    """Stop a trial whose best is below the median of the others' averages (Golovin et al., 2017, Google Vizier)."""

    name: Literal["median"] = "median"
    grace_steps: _GraceSteps
    min_trials: Annotated[int, Field(ge=2)] = 3
    """Trials that must have come as far before one is stopped."""


class PBTScheduler(Spec):
    """Population based training: bad trials copy good ones and change (Jaderberg et al., 2017, arXiv:1711.09846)."""

    name: Literal["pbt"] = "pbt"
    every_steps: _EverySteps
    mutations: _Mutations = None
    quantile_fraction: _QuantileFraction = 0.25
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that a mutated parameter is drawn anew from the space; else it is moved by a factor."""
    factors: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.8, 1.2)
    """How far a mutated number moves, each as likely: it is multiplied, or on a linear range moves by as much of the
    range (0.8: down by a fifth). It stays within the space. Of a list, the neighbour is taken."""
    synchronous: _Synchronous = True


class PB2Scheduler(Spec):
    """PBT whose changes a Gaussian process proposes (Parker-Holder et al., 2020, arXiv:2002.02518)."""

    name: Literal["pb2"] = "pb2"
    every_steps: _EverySteps
    mutations: _Mutations = None
    quantile_fraction: _QuantileFraction = 0.25
    synchronous: _Synchronous = True


SchedulerSpec = Annotated[
    NoScheduler | ASHAScheduler | HyperBandScheduler | MedianScheduler | PBTScheduler | PB2Scheduler,
    Field(discriminator="name"),
    tagged("name", "scheduler", ("none", "asha", "hyperband", "median", "pbt", "pb2")),
]
"""A scheduler by its `name`, with its own options."""
