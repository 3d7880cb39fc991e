"""Which jobs are submitted again when a node has gone: those whose driver was on it, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray.job_submission import JobStatus

from rlplatform.cluster.job_revival import MAX_REVIVALS, JobState, lost_jobs
from rlplatform.cluster.jobs import revived_id

GONE = JobState("sweep", "sweep", JobStatus.RUNNING, driver_node="old head", exit_code=None)
LIVING = {"new head", "worker"}


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.FAILED])
def test_a_job_whose_driver_was_on_a_node_that_is_gone_is_lost_whatever_ray_calls_it(status: JobStatus) -> None:
    assert lost_jobs([replace(GONE, status=status)], LIVING) == [replace(GONE, status=status)]


@pytest.mark.parametrize(
    "job",
    [
        replace(GONE, driver_node="worker"),
        replace(GONE, driver_node=None, status=JobStatus.PENDING),
        replace(GONE, status=JobStatus.SUCCEEDED, exit_code=0),
        replace(GONE, status=JobStatus.FAILED, exit_code=2),
        replace(GONE, status=JobStatus.STOPPED),
    ],
)
def test_a_job_that_lives_waits_or_has_ended_is_left_alone(job: JobState) -> None:
    assert lost_jobs([job], LIVING) == []


def test_only_the_newest_submission_of_a_job_counts() -> None:
    revived = JobState(revived_id("sweep", 1), "sweep", JobStatus.RUNNING, "new head", None)
    assert (revived.submission_id, revived.job, revived.revivals) == ("sweep.revived-1", "sweep", 1)
    assert lost_jobs([revived, GONE], LIVING) == []
    assert lost_jobs([GONE, revived], {"worker"}) == [revived]


def test_a_job_that_takes_its_node_down_each_time_ends() -> None:
    assert lost_jobs([replace(GONE, submission_id=f"sweep.revived-{MAX_REVIVALS}")], LIVING) == []
