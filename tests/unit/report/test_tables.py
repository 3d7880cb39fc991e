"""Rows from run records."""

from __future__ import annotations

from datetime import timedelta

from rlplatform.artifacts.provenance import machine
from rlplatform.artifacts.run_record import Attempt
from rlplatform.report.tables import best_of, group_rows, run_row
from tests.unit.report.records import NOON, record


def test_a_completed_run_has_its_final_evaluation() -> None:
    row = run_row(record(3, final=480.0, best=500.0))
    assert (row.seed, row.step, row.n_episodes) == (3, 1_024, 100)
    assert (row.return_mean, row.return_ci_low, row.return_ci_high, row.best_return) == (480.0, 479.0, 481.0, 500.0)


def test_a_running_run_has_its_progress_and_no_final_evaluation() -> None:
    row = run_row(record())
    assert (row.state, row.step, row.return_mean, row.n_episodes) == ("running", 512, None, None)


def test_wall_time_is_that_of_all_attempts() -> None:
    whole = Attempt(
        started_at=NOON, ended_at=NOON + timedelta(seconds=30), start_step=0, machine=machine(), command="train"
    )
    killed = Attempt(started_at=NOON + timedelta(seconds=60), start_step=256, machine=machine(), command="resume")
    assert run_row(record(attempts=(whole, killed))).wall_s == 30 + 30


def test_an_attempt_killed_before_the_last_one_counts_nothing_that_is_not_known() -> None:
    killed = Attempt(started_at=NOON, start_step=0, machine=machine(), command="train")
    last = Attempt(
        started_at=NOON + timedelta(seconds=60),
        ended_at=NOON + timedelta(seconds=80),
        start_step=256,
        machine=machine(),
        command="resume",
    )
    assert run_row(record(attempts=(killed, last))).wall_s == 20


def test_runs_that_differ_in_the_seed_are_one_group() -> None:
    rows = [run_row(record(seed, final=final, best=final)) for seed, final in enumerate((0.0, 10.0, 20.0, 1000.0))]
    (group,) = group_rows([*rows, run_row(record(9))])
    assert (group.seeds, group.iqm.value, group.best_run) == (4, 15.0, rows[3].run)


def test_runs_of_another_algorithm_are_another_group() -> None:
    rows = [run_row(record(0, final=1.0)), run_row(record(0, final=2.0, algorithm="a2c"))]
    assert [group.seeds for group in group_rows(rows)] == [1, 1]


def test_the_best_run_is_chosen_by_its_evaluations_during_training() -> None:
    lucky = run_row(record(1, final=500.0, best=490.0))
    best = run_row(record(2, final=480.0, best=499.0))
    assert best_of([lucky, best]) is best


def test_equal_evaluations_leave_the_choice_to_the_final_one() -> None:
    rows = [run_row(record(seed, final=final, best=500.0)) for seed, final in ((1, 480.0), (2, 495.0))]
    assert best_of(rows).seed == 2
