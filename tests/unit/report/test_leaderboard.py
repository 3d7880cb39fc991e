"""Leaderboards: the order of trials, their intervals, and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rlplatform.report.leaderboard import leaderboard, value_curve, write_leaderboard
from rlplatform.report.search_report import best_run
from tests.unit.report.searches import add_trial, make_search

POINT = {"algorithm.learning_rate": 1e-3}


def test_trials_are_ranked_by_their_value_and_those_without_one_stand_last(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, POINT, [[]], "queued")
    add_trial(search, 1, POINT, [[30.0, 20.0]])
    add_trial(search, 2, POINT, [[10.0, 40.0]])
    assert [(row.rank, row.trial, row.value) for row in leaderboard(search)] == [
        (1, "0002", 40.0),
        (2, "0001", 30.0),
        (None, "0000", None),
    ]


def test_of_equal_trials_the_one_that_trained_less_is_better(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, POINT, [[500.0, 500.0]])
    add_trial(search, 1, POINT, [[500.0]], "stopped")
    assert [row.trial for row in leaderboard(search)] == ["0001", "0000"]


@pytest.mark.parametrize(("of", "expected"), [("best", 30.0), ("last", 20.0)])
def test_the_value_is_what_the_objective_looks_at(of: str, expected: float, tmp_path: Path) -> None:
    search = make_search(tmp_path, objective={"of": of, "seeds": [0]})
    add_trial(search, 0, POINT, [[30.0, 20.0]])
    assert leaderboard(search)[0].value == expected


def test_a_failed_trial_has_no_rank(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, POINT, [[30.0]], "failed")
    assert leaderboard(search)[0].rank is None


def test_the_lowest_wins_where_less_is_better(tmp_path: Path) -> None:
    search = make_search(tmp_path, objective={"mode": "min", "of": "last", "seeds": [0]})
    add_trial(search, 0, POINT, [[30.0]])
    add_trial(search, 1, POINT, [[10.0]])
    assert [row.trial for row in leaderboard(search)] == ["0001", "0000"]


def test_several_seeds_have_an_interval_around_the_value(tmp_path: Path) -> None:
    search = make_search(tmp_path, seeds=(1, 2, 3))
    add_trial(search, 0, POINT, [[10.0, 0.0], [20.0, 0.0], [60.0, 0.0]])
    (row,) = leaderboard(search)
    assert (row.value, row.seeds) == (30.0, 3)
    assert row.low is not None
    assert row.high is not None
    assert 10.0 <= row.low < 30.0 < row.high <= 60.0


def test_one_seed_has_none(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, POINT, [[10.0]])
    assert leaderboard(search)[0].low is None


def test_the_interval_is_left_out_when_the_evaluation_behind_the_value_is_gone(tmp_path: Path) -> None:
    search = make_search(tmp_path, seeds=(1, 2))
    record = add_trial(search, 0, POINT, [[10.0], [20.0]])
    search.append_trials([record.model_copy(update={"best_value": 99.0})])
    (row,) = leaderboard(search)
    assert (row.value, row.low) == (99.0, None)


def test_a_curve_has_the_steps_at_which_every_seed_was_evaluated(tmp_path: Path) -> None:
    search = make_search(tmp_path, seeds=(1, 2))
    record = add_trial(search, 0, POINT, [[1.0, 2.0], [3.0, 4.0]])
    first, second = search.runs(record)
    (second.path / "evaluations.jsonl").write_text('{"step":128,"purpose":"evaluation","return_mean":3.0}\n')
    assert value_curve((first, second), search.record.objective) == {128: (1.0, 3.0)}


def test_csv_has_a_column_for_each_parameter(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, {"algorithm.learning_rate": 0.5}, [[10.0]])
    add_trial(search, 1, {"algorithm.learning_rate": 0.25, "env.n_envs": 2}, [[20.0]])
    table, document = write_leaderboard(leaderboard(search), search.path)
    with table.open() as file:
        first, second = csv.DictReader(file)
    assert (first["rank"], first["algorithm.learning_rate"], first["env.n_envs"]) == ("1", "0.25", "2")
    assert second["env.n_envs"] == ""
    assert json.loads(document.read_text())[1]["point"] == {"algorithm.learning_rate": 0.5}


def test_the_run_to_publish_is_that_of_the_best_seed(tmp_path: Path) -> None:
    search = make_search(tmp_path, seeds=(1, 2))
    add_trial(search, 0, POINT, [[10.0, 90.0], [80.0, 20.0]])
    assert best_run(search, leaderboard(search)[0]).path.name == "seed_1"
