"""What `rlplatform jobs` says without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlplatform import cli, names
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.cluster import jobs as cluster_jobs
from rlplatform.cluster.job_supervision import Limits
from rlplatform.cluster.jobs import Job, JobRequest, Submitted
from rlplatform.commands.jobs import exit_code
from tests.unit.tune.small_search import small_search

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


def job(status: str, code: int | None = None, message: str = "") -> Job:
    return Job("sweep-7", "sweep-7", status, "python jobs/train.py", "python -m …", code, message, NOW, NOW)


class OneJob:
    """A cluster with one job, which ends as the test wants."""

    address = "http://head:8265"
    ended = job("SUCCEEDED", 0)
    asked: list[JobRequest] = []

    def __init__(self, address: str | None) -> None:
        self.new = not self.asked

    def submit(self, request: JobRequest) -> Submitted:
        self.asked.append(request)
        return Submitted(job("RUNNING"), self.new)

    def all(self) -> list[Job]:
        return [self.ended]

    def get(self, name: str) -> Job:
        return self.ended

    def follow(self, found: Job, write: object) -> Job:
        return self.ended


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[OneJob]:
    """The cluster that commands connect to."""
    monkeypatch.setattr(OneJob, "asked", [])
    monkeypatch.setattr(cluster_jobs, "Jobs", OneJob)
    return OneJob


def test_submitting_prints_the_id_for_scripts_and_the_rest_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--id", "sweep-7", "--deadline", "1h30m", "--retries", "1", "--stop-wait", "90s", "--env", "A=b=c"]
    arguments = ["jobs", "submit", *options, "--", "python", "jobs/train.py", "--seeds", "1-4"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == "sweep-7\n"
    assert "Job sweep-7 is submitted to http://head:8265." in captured.err
    assert cli.main(arguments) == 0
    assert "is there already, RUNNING; nothing is submitted" in capsys.readouterr().err
    request = JobRequest(
        "sweep-7", ("python", "jobs/train.py", "--seeds", "1-4"), Limits(1, 5400.0, 90.0), ".", {"A": "b=c"}
    )
    assert OneJob.asked == [request, request]


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        (job("SUCCEEDED", 0), 0, "SUCCEEDED"),
        (job("FAILED", 2), 2, "exit code 2: the request was wrong"),
        (job("FAILED", 124), 124, "its deadline was reached"),
        (job("FAILED", 7), 7, "its command failed"),
        (job("FAILED", None, "The working_dir is gone\nmore"), 1, "FAILED: The working_dir is gone"),
        (job("STOPPED"), 130, "STOPPED"),
    ],
)
def test_waiting_ends_as_the_job_does(
    ended: Job, code: int, words: str, cluster: type[OneJob], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.ended = ended
    assert exit_code(ended) == code
    assert cli.main(["jobs", "submit", "--wait", "true"]) == code
    assert words in capsys.readouterr().err
    assert cli.main(["jobs", "list"]) == 0
    assert words in capsys.readouterr().out


def test_a_job_shows_the_searches_that_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(names.HOME_ENV_VAR, str(tmp_path))
    SearchDir.create(tmp_path, small_search(name="of-nobody"))
    monkeypatch.setenv(names.JOB_ENV_VAR, "sweep-7")
    search = SearchDir.create(tmp_path, small_search())
    assert cli.main(["jobs", "status", "sweep-7"]) == 0
    shown = capsys.readouterr().out
    assert f"search {search.id}  created, at most 6 trials" in shown
    assert "of-nobody" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--deadline", "2"], "`--deadline` must be a time"),
        (["--stop-wait", "soon"], "`--stop-wait` must be a time"),
        (["--working-dir", "nowhere"], "`--working-dir` must be a folder"),
        (["--env", "A"], "`--env` must be NAME=VALUE, got 'A'"),
        (["--id", "a b"], "`--id` must be"),
        (["--retries", "-1"], "--retries"),
    ],
)
def test_bad_options_are_refused_before_anything_is_submitted(
    options: list[str], message: str, cluster: type[OneJob], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["jobs", "submit", *options, "--", "true"]) == 2
    assert message in capsys.readouterr().err
    assert cluster.asked == []
