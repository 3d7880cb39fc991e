"""Results of a job never lie in its unpacked code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlplatform.cluster.job import prepare_job
from rlplatform.cluster.session import ray_session
from rlplatform.errors import ResourceError


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


def test_the_address_of_a_dashboard_is_no_address_of_a_cluster() -> None:
    with pytest.raises(ResourceError, match=r"address of a dashboard.*--address 10.0.0.1:6379"), \
            ray_session("http://127.0.0.1:8265"):
        pass
