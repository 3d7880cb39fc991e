"""Results of a job never lie in its unpacked code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlplatform.cluster.job import prepare_job


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "rlplatform-results"),
        ("", "rlplatform-results"),
        ("mine", "mine"),
        ("~/mine", "mine"),
        ("/data", "/data"),
    ],
)
def test_home_of_a_job_is_absolute(given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLPLATFORM_HOME")
    if given is not None:
        monkeypatch.setenv("RLPLATFORM_HOME", given)
    prepare_job()
    assert Path(os.environ["RLPLATFORM_HOME"]) == Path.home() / expected
