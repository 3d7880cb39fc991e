"""Every algorithm, killed with SIGKILL at a drawn moment and resumed by another process, ends with the same bytes.

`benchmarks/resume_kills.py` does the same at length; docs/results/resume.md has its figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills import MOMENTS, kill_and_resume, train
from tests.unit.train.small_specs import ALGORITHMS, small_spec


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_killed_run_ends_as_one_that_nobody_interrupted(algorithm: str, tmp_path: Path) -> None:
    reference = train(small_spec(algorithm), tmp_path)
    number, moments = ALGORITHMS.index(algorithm), [*MOMENTS]
    moments = moments[number % len(moments) :] + moments
    moment = next(
        moment for moment in moments if reference.moments.get(moment)
    )  # ARS has no optimizer to be killed in.
    kill = kill_and_resume(small_spec(algorithm), moment, number, reference, tmp_path)
    assert kill.exact, kill
