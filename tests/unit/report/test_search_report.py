"""What a search leaves: pictures, HParams, importances, and a spec that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlplatform.report.hparams import VALUE_TAG, write_hparams
from rlplatform.report.importance import importances
from rlplatform.report.leaderboard import leaderboard
from rlplatform.report.search_plots import (
    HISTORY_FILE,
    IMPORTANCES_FILE,
    PARALLEL_FILE,
    draw_parallel_coordinates,
    write_plots,
)
from rlplatform.report.search_report import write_search_report
from rlplatform.specs.load import load_run_spec
from tests.unit.report.searches import add_trial, add_trials, make_search


def test_a_report_has_everything_and_can_be_written_again(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trials(search, 8)
    report = write_search_report(search)
    assert report.best is not None
    assert report.best.trial == "0007"
    assert [path.name for path in report.files] == [
        "leaderboard.csv",
        "leaderboard.json",
        "best.yaml",
        HISTORY_FILE,
        PARALLEL_FILE,
        IMPORTANCES_FILE,
        "tb",
    ]
    before = {path: path.read_bytes() for path in report.files if path.suffix == ".svg"}
    write_search_report(search)
    assert {path: path.read_bytes() for path in before} == before


def test_a_search_without_results_has_a_leaderboard_and_no_best(tmp_path: Path) -> None:
    report = write_search_report(make_search(tmp_path))
    assert (report.best, [path.name for path in report.files]) == (None, ["leaderboard.csv", "leaderboard.json", "tb"])


def test_the_best_spec_trains_as_it_is(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, {"algorithm.learning_rate": 0.125, "env.n_envs": 2}, [[10.0]])
    write_search_report(search)
    path = search.path / "best.yaml"
    spec = load_run_spec(path, environ={}).spec
    assert (spec.env.n_envs, spec.algorithm.model_dump(mode="json")["learning_rate"]) == (2, 0.125)
    assert path.read_text().startswith(f"# Trial 0000 of search {search.id}: eval/return_mean 10,")


def test_a_bred_spec_says_that_it_changed_while_it_trained(tmp_path: Path) -> None:
    search = make_search(
        tmp_path,
        space={"algorithm.learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        scheduler={"name": "pbt", "every_steps": 128},
    )
    add_trial(search, 0, {"algorithm.learning_rate": 1e-3}, [[10.0]])
    write_search_report(search)
    assert "# pbt changed parameters while the trial trained" in (search.path / "best.yaml").read_text()


def test_the_parameter_that_decides_is_the_most_important() -> None:
    points: list[dict[str, Any]] = [{"a": float(at), "b": at % 2, "c": "x"} for at in range(12)]
    shares = importances(points, [point["a"] for point in points])
    assert [one.parameter for one in shares] == ["a", "b"]
    assert shares[0].share > 0.9
    assert sum(one.share for one in shares) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("points", "values"),
    [
        ([], []),
        ([{"a": at} for at in range(3)], [0.0, 1.0, 2.0]),
        ([{"a": at} for at in range(9)], [1.0] * 9),
        ([{"a": 1} for _ in range(9)], [float(at) for at in range(9)]),
    ],
    ids=["none", "too few", "all alike", "nothing varied"],
)
def test_nothing_is_important_where_nothing_is_known(points: list[dict[str, int]], values: list[float]) -> None:
    assert importances(points, values) == []


def test_lists_and_truth_values_have_importances_too() -> None:
    points: list[dict[str, Any]] = [{"net": [16] if at % 2 else [32], "flag": at % 3 == 0} for at in range(12)]
    shares = importances(points, [float(at % 2) for at in range(12)])
    assert shares[0].parameter == "net"


def test_a_conditional_parameter_is_drawn_with_gaps_and_has_no_importance(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for number in range(8):
        more = {"algorithm.n_epochs": number} if number % 2 else {}
        add_trial(search, number, {"algorithm.learning_rate": 10.0**-number, **more}, [[float(number)]])
    rows = leaderboard(search)
    figure = draw_parallel_coordinates(rows)
    assert figure is not None
    text = {label.get_text() for label in figure.axes[0].get_xticklabels()}
    assert text == {"algorithm.\nlearning_rate", "algorithm.\nn_epochs", "value"}
    assert [one.parameter for one in importances([row.point for row in rows], [row.value or 0.0 for row in rows])] == [
        "algorithm.learning_rate"
    ]


def test_one_trial_draws_its_history_only(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, {"algorithm.learning_rate": 0.1}, [[10.0]])
    assert [path.name for path in write_plots(leaderboard(search), tmp_path / "plots")] == [HISTORY_FILE]


def test_tensorboard_reads_parameters_and_values_of_each_trial(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    add_trial(search, 0, {"algorithm.learning_rate": 0.5, "env.n_envs": None}, [[10.0, 30.0, 20.0]])
    folder = write_hparams(search, tmp_path / "tb")
    events = EventAccumulator(str(folder / "0000"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars(VALUE_TAG)] == [
        (128, 10.0),
        (256, 30.0),
        (384, 20.0),
        (384, 30.0),
    ]
    start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    values = start.session_start_info.hparams
    assert (values["algorithm.learning_rate"].number_value, values["env.n_envs"].string_value) == (0.5, "None")
