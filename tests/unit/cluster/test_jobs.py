"""The client of jobs, around a cluster that is a list."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from rlplatform.cluster import dashboard, jobs
from rlplatform.cluster.dashboard import dashboard_address, talking_to
from rlplatform.cluster.job_supervision import Limits
from rlplatform.cluster.jobs import JobRequest, Jobs, Submitted, new_job_id, revivals, revived_id
from rlplatform.errors import JobError, ResourceError, UnknownNameError
from rlplatform.names import JOB_NAME_METADATA

REQUEST = JobRequest("sweep-7", ("python", "jobs/train.py", "a b.yaml"), Limits(2, 7200.0, 60.0))


class Cluster:
    """Ray's client, as far as it is used, and the jobs that were submitted to it."""

    def __init__(self) -> None:
        self.jobs: list[SimpleNamespace] = []
        self.stopped: list[str] = []
        self.lost: list[str] = []
        self.before_submitting: Callable[[], None] = lambda: None

    def submit_job(self, *, entrypoint: str, submission_id: str, runtime_env: Any, metadata: dict[str, str]) -> str:
        self.before_submitting()
        if submission_id in {job.submission_id for job in self.jobs}:
            raise RuntimeError(f"Request failed: Job with submission_id {submission_id} already exists.")
        self.add(submission_id, entrypoint, metadata)
        self.runtime_env = runtime_env
        return submission_id

    def add(self, job: str | None, entrypoint: str = "true", metadata: dict[str, str] | None = None) -> SimpleNamespace:
        details = SimpleNamespace(
            submission_id=job,
            status="RUNNING",
            entrypoint=entrypoint,
            metadata=metadata,
            driver_exit_code=None,
            message=None,
            start_time=1_000 * (len(self.jobs) + 1),
            end_time=None,
        )
        self.jobs.append(details)
        return details

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.jobs

    def stop_job(self, job: str) -> bool:
        self.stopped.append(job)
        return job not in self.lost


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster that `Jobs` connects to."""
    cluster = Cluster()
    monkeypatch.setattr(jobs, "connected", lambda address: (cluster, str(address)))
    monkeypatch.setattr(jobs, "POLL_S", 0.0)
    return cluster


def test_a_job_runs_its_command_under_the_supervisor(cluster: Cluster) -> None:
    done = Jobs("http://head:8265").submit(replace(REQUEST, working_dir="code", env_vars={"A": "b"}))
    assert (done.new, done.job.name, done.job.command) == (True, "sweep-7", "python jobs/train.py 'a b.yaml'")
    options = ["--job", "sweep-7", "--retries", "2", "--deadline-s", "7200", "--stop-wait-s", "60"]
    supervisor = ["python", "-m", "rlplatform.cluster.job_supervisor"]
    assert shlex.split(done.job.entrypoint) == [*supervisor, *options, "--", *REQUEST.command]
    assert cluster.runtime_env == {"working_dir": "code", "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "70", "A": "b"}}


@pytest.mark.parametrize(
    ("program", "python"),
    [("/venv/bin/python3.11", "/venv/bin/python3.11"), ("python", "python"), ("rlplatform", "python")],
)
def test_the_supervisor_runs_on_the_commands_own_python(program: str, python: str) -> None:
    assert shlex.split(replace(REQUEST, command=(program, "x")).entrypoint())[0] == python


def test_submitting_a_job_again_changes_nothing(cluster: Cluster) -> None:
    first, second = (Jobs().submit(REQUEST) for _ in range(2))
    assert (first.new, second.new) == (True, False)
    assert second.job == first.job
    assert len(cluster.jobs) == 1


@pytest.mark.parametrize("change", [{"command": ("python", "other.py")}, {"limits": Limits(retries=9)}])
def test_an_id_stands_for_one_command_and_its_limits(cluster: Cluster, change: dict[str, Any]) -> None:
    Jobs().submit(REQUEST)
    with pytest.raises(JobError, match=r"There is a job 'sweep-7' with another command .* Give another `--id`"):
        Jobs().submit(replace(REQUEST, **change))
    assert len(cluster.jobs) == 1


def test_of_two_submitters_at_once_the_slower_one_finds_the_job(cluster: Cluster) -> None:
    def another_is_quicker() -> None:
        cluster.add("sweep-7", REQUEST.entrypoint())

    cluster.before_submitting = another_is_quicker
    assert not Jobs().submit(REQUEST).new


def test_a_head_that_is_still_starting_is_waited_for(cluster: Cluster) -> None:
    answers = iter([RuntimeError("No available agent to submit job, please try again later."), None])

    def start() -> None:
        if error := next(answers):
            raise error

    cluster.before_submitting = start
    assert Jobs().submit(REQUEST).new


def test_jobs_are_listed_newest_first_without_programs_that_are_none(cluster: Cluster) -> None:
    for name in ("a", None, "b"):
        cluster.add(name)
    assert [job.id for job in Jobs().all()] == ["b", "a"]


def test_a_job_is_found_by_the_beginning_of_its_id(cluster: Cluster) -> None:
    for name in ("train-1", "train-12", "sweep"):
        cluster.add(name)
    assert Jobs().get("sw").id == "sweep"
    assert Jobs().get("train-1").id == "train-1"
    with pytest.raises(JobError, match="2 jobs begin with 'tr': train-1, train-12"):
        Jobs().get("tr")
    with pytest.raises(UnknownNameError, match=r"Unknown job 'swep'. Did you mean 'sweep'\?.*rlplatform jobs list"):
        Jobs().get("swep")


def test_only_what_goes_on_can_be_stopped(cluster: Cluster) -> None:
    details = cluster.add("one")
    Jobs().stop(Jobs().get("one"))
    details.status = "SUCCEEDED"
    with pytest.raises(JobError, match="Job one is over: it is SUCCEEDED"):
        Jobs().stop(Jobs().get("one"))
    assert cluster.stopped == ["one"]


def test_a_job_that_lost_its_node_is_its_newest_submission(cluster: Cluster) -> None:
    metadata = {JOB_NAME_METADATA: "sweep-7"}
    for revival in (10, 9):
        cluster.add(revived_id("sweep-7", revival), REQUEST.entrypoint(), metadata)
    cluster.add("sweep-7", REQUEST.entrypoint(), metadata)
    (job,) = Jobs().all()
    assert (job.id, job.name) == ("sweep-7.revived-10", "sweep-7")
    assert [Jobs().get(name) for name in ("sweep-7", "sw", "sweep-7.revived-9")] == [job] * 3
    assert Jobs().submit(REQUEST) == Submitted(job, new=False)
    cluster.jobs[0].status = "SUCCEEDED"
    assert Jobs().wait(job).status == "SUCCEEDED"


def test_a_job_of_a_lost_node_is_stopped_once_it_is_submitted_again(cluster: Cluster) -> None:
    lost, metadata = cluster.add("sweep-7"), {JOB_NAME_METADATA: "sweep-7"}
    cluster.lost.append(lost.submission_id)
    stop_job = cluster.stop_job

    def stop(job: str) -> bool:
        if len(cluster.stopped) == 2:
            cluster.add("sweep-7.revived-1", metadata=metadata)
        return stop_job(job)

    cluster.stop_job = stop  # type: ignore[method-assign]
    Jobs().stop(Jobs().get("sweep-7"))
    assert cluster.stopped == ["sweep-7", "sweep-7", "sweep-7", "sweep-7.revived-1"]


def test_a_number_is_a_name_of_a_job_too() -> None:
    assert [revivals("7", "7"), revivals("7.revived-2", "7"), revivals("77", "7")] == [0, 2, 0]


@pytest.mark.parametrize("job_id", ["", "-x", "a b", "../x", "a/b", "x" * 101])
def test_an_id_is_a_plain_name(job_id: str) -> None:
    with pytest.raises(JobError, match="`--id` must be"):
        replace(REQUEST, job_id=job_id)


def test_a_new_id_is_one() -> None:
    assert replace(REQUEST, job_id=new_job_id()).job_id != new_job_id()


def test_the_dashboard_is_found_by_option_then_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dashboard.ADDRESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert dashboard_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    assert dashboard_address(None) == "http://a:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://b/ray/")
    assert dashboard_address(None) == "https://b/ray"
    assert dashboard_address("http://c:2") == "http://c:2"


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "auto", "ray://head:10001", "http://"])
def test_the_address_of_a_head_is_not_that_of_its_dashboard(address: str) -> None:
    with pytest.raises(ResourceError, match="Jobs go to the dashboard of a cluster"):
        dashboard_address(address)


def test_where_nobody_listens_there_is_no_cluster() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(ResourceError, match=r"No cluster answers at .*: Connection refused\. Start one"):
            Jobs(f"http://127.0.0.1:{nobody.getsockname()[1]}")


@pytest.mark.parametrize(
    ("raised", "expected", "match"),
    [
        (AuthenticationError("Unauthenticated"), ResourceError, "refuses the token. Set RAY_AUTH_MODE=token"),
        (ConnectionResetError("reset"), ResourceError, "No cluster answers at http://x: reset"),
        (RuntimeError("bad\nTraceback …\nValueError: no such thing"), JobError, "ValueError: no such thing"),
        (ValueError("Package size is too big"), JobError, "^Package size is too big$"),
    ],
)
def test_errors_of_rays_client_say_what_to_do(raised: Exception, expected: type[Exception], match: str) -> None:
    with pytest.raises(expected, match=match), talking_to("http://x"):
        raise raised


def test_the_code_is_left_out_when_it_is_installed_there() -> None:
    assert "working_dir" not in REQUEST.runtime_env()
    assert Path(str(replace(REQUEST, working_dir="code").runtime_env()["working_dir"])) == Path("code")
