"""What the reproducibility check concludes; that it kills and compares is tested end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.report.reproducibility import CheckedRun, Verification


def _run(difference: str = "") -> CheckedRun:
    return CheckedRun("uninterrupted", RunDir(Path("run")), "0" * 64, 10, difference)


@pytest.mark.parametrize(
    ("runs", "kills", "reproducible"),
    [
        ((_run(), _run(), _run()), (128,), True),
        ((_run(), _run(), _run("weights differ")), (128,), False),
        ((_run(), _run("metrics differ"), _run()), (128,), False),
        ((_run(), _run(), _run()), (), False),
    ],
    ids=["all the same", "the resumed run differs", "the repeated run differs", "nothing was killed"],
)
def test_only_equal_runs_of_which_one_was_killed_are_reproducible(
    runs: tuple[CheckedRun, ...], kills: tuple[int, ...], reproducible: bool
) -> None:
    assert Verification(runs, kills).reproducible is reproducible
