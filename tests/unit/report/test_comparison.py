"""Comparisons: what is worked out, what is written, and how one is found again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import RunNotFound, StorageError
from rlplatform.report.comparison import Comparison, compare_groups
from rlplatform.report.tables import run_row
from rlplatform.specs.load import run_spec_from_mapping
from tests.unit.report.records import record


def make_runs(home: Path, finals: dict[int, float]) -> list[RunDir]:
    """Make runs of small specs, by seed, that completed with a final return."""
    runs = []
    for seed, final in finals.items():
        spec = run_spec_from_mapping(
            {
                "algorithm": {"name": "ppo"},
                "env": {"id": "CartPole-v1", "backend": "sync"},
                "budget": {"total_timesteps": 64},
                "seed": seed,
            },
            "test",
        )
        run = RunDir.create(home, spec)
        for state in ("queued", "running", "completed"):
            run.update(state=state)
        run.update(result={"step": 64, "final": {"n_episodes": 2, "return_mean": final}})
        runs.append(run)
    return runs


def test_each_group_is_compared_with_the_first() -> None:
    base = [run_row(record(seed, final=float(seed))) for seed in (1, 2, 3)]
    better = [run_row(record(seed, final=seed + 10.0)) for seed in (1, 2, 3)]
    first, second = compare_groups({"base": base, "better": better})
    assert (first.improvement, first.mean, first.std) == (None, 2.0, 1.0)
    assert second.improvement is not None
    assert (second.improvement.value, second.improvement.low, second.improvement.high) == (1.0, 1.0, 1.0)
    assert second.iqm is not None
    assert second.iqm.value == 12.0


def test_runs_without_a_final_evaluation_are_counted_but_not_averaged() -> None:
    rows = [run_row(record(1, final=5.0)), run_row(record(2))]
    (group,) = compare_groups({"base": rows})
    assert (group.seeds, group.asked, group.mean, group.std) == (1, 2, 5.0, None)


def test_a_group_without_results_has_no_numbers() -> None:
    base, other = compare_groups({"base": [run_row(record(1))], "other": [run_row(record(1, final=1.0))]})
    assert (base.iqm, base.mean, other.improvement) == (None, None, None)


def test_results_are_written_for_people_and_programs(tmp_path: Path) -> None:
    comparison = Comparison.create(
        tmp_path, {"a": make_runs(tmp_path, {1: 1.0, 2: 2.0}), "b": make_runs(tmp_path, {1: 9.0})}
    )
    comparison.write()
    results = json.loads((comparison.path / names.RESULTS_FILE).read_text())
    assert [group["seeds"] for group in results["groups"]] == [2, 1]
    with (comparison.path / names.RUNS_CSV_FILE).open() as file:
        assert [(row["label"], row["return_mean"]) for row in csv.DictReader(file)] == [
            ("a", "1.0"),
            ("a", "2.0"),
            ("b", "9.0"),
        ]
    with (comparison.path / names.GROUPS_CSV_FILE).open() as file:
        first, second = csv.DictReader(file)
    assert (first["improvement"], second["improvement"], second["iqm_low"]) == ("", "1.0", "9.0")


def test_a_comparison_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, {1: 1.0})
    made = Comparison.create(tmp_path, {"a/b.yaml": runs})
    assert made.id.startswith("a-b.yaml-")
    for text in (made.id, "a-b", str(made.path)):
        assert Comparison.open(tmp_path, text) == made


def test_a_job_that_is_tried_again_goes_on_with_its_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.JOB_ENV_VAR, "job-1")
    made = Comparison.create(tmp_path, {"a": make_runs(tmp_path, {1: 1.0})})
    assert Comparison.of_this_job(tmp_path) == made
    monkeypatch.setattr("sys.argv", ["compare.py", "other.yaml"])
    assert Comparison.of_this_job(tmp_path) is None
    monkeypatch.undo()
    assert Comparison.of_this_job(tmp_path) is None


def test_an_unknown_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match=r"There is no comparison 'x' in .*comparisons"):
        Comparison.open(tmp_path, "x")


def test_a_damaged_comparison_is_named(tmp_path: Path) -> None:
    made = Comparison.create(tmp_path, {"a": make_runs(tmp_path, {1: 1.0})})
    (made.path / names.COMPARISON_FILE).write_text("{}")
    with pytest.raises(StorageError, match=r"comparison.json is damaged"):
        Comparison.open(tmp_path, made.id)
