"""What `train` and `resume` say in the end."""

from __future__ import annotations

import pytest

from rlplatform.commands.training import exit_code, print_results
from rlplatform.report.tables import run_row
from tests.unit.report.records import record


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["completed", "completed"], 0),
        (["queued"], 0),
        (["completed", "stopped"], 130),
        (["paused"], 130),
        (["stopped", "failed"], 1),
    ],
)
def test_exit_codes(states: list[str], code: int) -> None:
    assert exit_code(states) == code


def test_several_seeds_get_an_interquartile_mean(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([run_row(record(seed, final=final, best=500.0)) for seed, final in ((1, 400.0), (2, 500.0))])
    out = capsys.readouterr().out
    assert "400.0 [399.0, 401.0]" in out
    assert "cartpole: IQM 450.0 over 2 seeds, 95 % stratified bootstrap interval [400.0, 500.0]" in out


def test_one_seed_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([run_row(record(1, final=400.0))])
    assert "IQM" not in capsys.readouterr().out
