"""What `benchmarks.schedulers` compares, and what it keeps of each search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_load import load_search_spec

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "results" / "schedulers"
N_EPISODES = 200
CONCURRENT = 2

_QUIET = ("run.tracking.tensorboard=false", "run.tracking.csv=false", "run.checkpoint.keep_last=1")


@dataclass(frozen=True)
class Study:
    """One search, and the schedulers that it is run with."""

    config: Path
    sides: dict[str, str]
    """Scheduler by name of the side; the first is what the others are compared with."""
    overrides: tuple[str, ...] = ()
    measures_all: bool = False
    """Every trial's policy is evaluated once more when a search has ended, not only the best one's."""

    def spec(self, side: str, seed: int) -> SearchSpec:
        """Return what one side searches with one seed."""
        of_side = (
            f"scheduler={self.sides[side]}",
            f"seed={seed}",
            f"run.seed={seed}",
            f"budget.concurrent={CONCURRENT}",
        )
        return load_search_spec(self.config, overrides=[*_QUIET, *self.overrides, *of_side], environ={})


_CARTPOLE = ROOT / "configs" / "search" / "cartpole_ppo.yaml"
_RANDOM_POINTS = (
    "sampler=random",
    "run.evaluation={every_steps: 1_200, n_episodes: 10, final_episodes: 0}",
    "objective.of=last",
    "space.algorithm.batch_size.values=[128, 256]",
    "space.algorithm.n_epochs={type: int, low: 1, high: 12}",
    # Three more orders of magnitude, in which little or nothing is learned.
    "space.algorithm.learning_rate={type: loguniform, low: 1e-6, high: 1e-1}",
)

STUDIES = {
    "asha": Study(
        _CARTPOLE,
        {
            "random": "none",
            "asha": "{name: asha, grace_steps: 1_200, reduction_factor: 3}",
            "asha4": "{name: asha, grace_steps: 1_200, reduction_factor: 4}",
        },
        (*_RANDOM_POINTS, "run.budget.total_timesteps=12_000"),
    ),
    "asha_long": Study(
        _CARTPOLE,
        {"random": "none", "asha": "{name: asha, grace_steps: 1_200, reduction_factor: 4}"},
        (*_RANDOM_POINTS, "run.budget.total_timesteps=24_000"),
    ),
    "pbt": Study(
        ROOT / "benchmarks" / "schedulers_pbt.yaml",
        {"alone": "none", "pbt": "{name: pbt, every_steps: 10_240}"},
        measures_all=True,
    ),
}


@dataclass(frozen=True)
class Member:
    """What became of one trial."""

    number: int
    point: dict[str, Any]
    steps: int
    """Environment steps spent on it."""
    whole: bool
    """It trained its whole budget."""
    generation: int
    value: float | None
    """What its search compared it by."""
    returns: list[float] | None
    """Of each held-out episode; None where they were not played."""


@dataclass(frozen=True)
class Outcome:
    """What one search came to."""

    study: str
    side: str
    seed: int
    wall_s: float
    cpu_s: float | None
    """Of all processes, Ray's start included; None where the search was interrupted."""
    best: int
    """Number of the trial that the search found best."""
    members: list[Member]

    @property
    def steps(self) -> int:
        """Environment steps of all trials."""
        return sum(member.steps for member in self.members)


def home(study: str, side: str, seed: int) -> Path:
    """Return where the search of one side and seed is."""
    return HOME / f"{study}-{side}-s{seed}"


def record_path(study: str, side: str, seed: int) -> Path:
    """Return where its outcome is kept."""
    return HOME / "records" / f"{study}-{side}-s{seed}.json"
