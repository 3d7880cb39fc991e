"""What is proposed: within the space, by its conditions, and the same after a sampler was written down."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from rlplatform.specs.search import SearchSpec
from rlplatform.tune.samplers import Sampler, make_sampler
from tests.unit.tune.small_search import small_search

LEARNERS = ("tpe", "gp", "cmaes")
SPACE = {
    "algorithm.gamma": {"type": "uniform", "low": 0.9, "high": 0.99},
    "algorithm.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
    "algorithm.n_epochs": {"type": "int", "low": 1, "high": 9, "step": 2},
    "env.n_envs": {"type": "int", "low": 1, "high": 64, "log": True},
}
CONDITIONAL = {
    **SPACE,
    "algorithm.normalize_advantage": {"type": "choice", "values": [True, False]},
    "algorithm.ent_coef": {"type": "uniform", "low": 0, "high": 1, "when": {"algorithm.normalize_advantage": True}},
}


def sampled(name: str, space: dict[str, Any] | None = None, **changes: Any) -> SearchSpec:
    return small_search(sampler={"name": name, "n_startup": 3}, space=space or SPACE, **changes)


def take(sampler: Sampler, numbers: range) -> list[dict[str, Any] | None]:
    """Ask for points, and tell a value after each."""
    points = []
    for number in numbers:
        points.append(sampler.suggest(number))
        sampler.tell(number, None if number == 1 else math.sin(number))
    return points


@pytest.mark.parametrize("name", ["random", *LEARNERS])
def test_every_point_lies_in_the_space(name: str) -> None:
    spec = sampled(name)
    for point in take(make_sampler(spec), range(8)):
        assert point is not None
        assert list(point) == list(spec.space)
        assert all(spec.space[path].contains(value) for path, value in point.items())


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_what_a_condition_excludes_is_not_part_of_a_point(name: str) -> None:
    spec = sampled(name, CONDITIONAL)
    points = take(make_sampler(spec), range(12))
    for point in points:
        assert point is not None
        assert ("algorithm.ent_coef" in point) is point["algorithm.normalize_advantage"]
    assert len({len(point or ()) for point in points}) == 2, "the draw never took both ways"


@pytest.mark.parametrize("name", ["random", "grid", *LEARNERS])
def test_a_sampler_that_was_written_down_goes_on_as_one_that_was_not(name: str) -> None:
    spec = sampled(name, {"algorithm.n_epochs": SPACE["algorithm.n_epochs"], **({} if name == "grid" else SPACE)})
    whole, first = make_sampler(spec), make_sampler(spec)
    points = take(whole, range(9))
    before = take(first, range(5))
    asked = first.suggest(5)
    second = pickle.loads(pickle.dumps(first))
    second.tell(5, math.sin(5))
    assert [*before, asked, *take(second, range(6, 9))] == points


def test_a_random_point_depends_on_the_seed_and_its_number_only() -> None:
    sampler = make_sampler(sampled("random"))
    fifth = sampler.suggest(5)
    assert [sampler.suggest(number) for number in range(6)][5] == fifth
    assert make_sampler(sampled("random", seed=1)).suggest(5) != fifth


def test_a_grid_gives_every_point_once_and_then_none() -> None:
    space = {
        "algorithm.n_epochs": {"type": "grid", "values": [1, 2]},
        "algorithm.gamma": {"type": "grid", "values": [0.9, 0.95, 0.99]},
    }
    sampler = make_sampler(sampled("grid", space))
    points = [sampler.suggest(number) for number in range(7)]
    assert points[6] is None
    assert [tuple(point.values()) for point in points if point] == [(n, g) for n in (1, 2) for g in (0.9, 0.95, 0.99)]


def test_other_samplers_take_grids_in_turn() -> None:
    space = {
        "algorithm.n_epochs": {"type": "grid", "values": [1, 2]},
        "algorithm.learning_rate": SPACE["algorithm.learning_rate"],
        "algorithm.gamma": {"type": "grid", "values": [0.9, 0.99]},
    }
    points = take(make_sampler(sampled("tpe", space)), range(4))
    assert {(point["algorithm.n_epochs"], point["algorithm.gamma"]) for point in points if point} == {
        (1, 0.9),
        (2, 0.9),
        (1, 0.99),
        (2, 0.99),
    }
