"""Jobs whose driver died with its node are submitted again; Ray marks them failed at best.

The head keeps the table of jobs, with each one's command, code and variables, in storage that outlives it (RocksDB or
Redis). So nothing is written down here: the RunManager, which Ray restarts on the new head, reads that table. A job of
`rlplatform jobs submit` goes on where it was, because its command is told the job's id and finds what it made before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from rlplatform import names
from rlplatform.cluster.jobs import revivals, revived_id
from rlplatform.logs import get_logger

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

LOOK_EVERY_S = 5.0
MAX_REVIVALS = 10
"""How often a job is submitted again; one that takes its node down each time must end."""
_ENDED = {"SUCCEEDED", "STOPPED"}

_log = get_logger(__name__)


@dataclass(frozen=True)
class JobState:
    """What Ray's table says of one submission."""

    submission_id: str
    job: str
    """The job's id, which its submissions share."""
    status: JobStatus
    driver_node: str | None
    """Id of the node that its driver runs on. None: it has not been placed."""
    exit_code: int | None
    """The driver's. None: it has not ended by itself."""

    @property
    def revivals(self) -> int:
        """How often the job had been submitted again, this submission included."""
        return revivals(self.submission_id, self.job)


def lost_jobs(jobs: Iterable[JobState], living_nodes: Set[str]) -> list[JobState]:
    """Return the newest submission of each job whose driver died with its node, unless it has had its revivals.

    Args:
        jobs: Every submission in Ray's table.
        living_nodes: Ids of the nodes that live.
    """
    newest: dict[str, JobState] = {}
    for job in jobs:
        if job.job not in newest or newest[job.job].revivals < job.revivals:
            newest[job.job] = job
    return [
        job
        for job in newest.values()
        if job.driver_node is not None
        and job.driver_node not in living_nodes
        and job.exit_code is None
        and job.status not in _ENDED
        and job.revivals < MAX_REVIVALS
    ]


class JobWatch:
    """Looks through Ray's table of jobs whenever a node has gone, from a thread."""

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self._nodes_seen: Set[str] | None = None

    def start(self) -> None:
        """Begin to watch, for as long as this process lives."""
        threading.Thread(target=self._loop, name="job-watch", daemon=True).start()

    def _loop(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            try:
                self._look()
            except (ray.exceptions.RayError, RuntimeError, OSError) as error:
                _log.debug("the table of jobs cannot be read yet; it is tried again: %s", error)

    def _look(self) -> None:
        living = {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
        if self._nodes_seen is not None and self._nodes_seen <= living:
            self._nodes_seen = living
            return
        from ray.job_submission import JobSubmissionClient  # half a second, which only this process pays

        client = JobSubmissionClient(ray.get_runtime_context().gcs_address)
        ours = [job for job in client.list_jobs() if names.JOB_NAME_METADATA in (job.metadata or {})]
        details = {str(job.submission_id): job for job in ours}
        for lost in lost_jobs(map(_state, ours), living):
            self._revive(client, lost, details[lost.submission_id])
        self._nodes_seen = living

    def _revive(self, client: JobSubmissionClient, lost: JobState, details: Any) -> None:
        submission_id = revived_id(lost.job, lost.revivals + 1)
        _log.warning("job %s: its driver died with its node; submitted again as %s", lost.job, submission_id)
        client.submit_job(
            entrypoint=details.entrypoint,
            submission_id=submission_id,
            metadata=details.metadata,
            runtime_env=details.runtime_env,
        )


def _state(details: Any) -> JobState:
    return JobState(
        str(details.submission_id),
        details.metadata[names.JOB_NAME_METADATA],
        details.status,
        details.driver_node_id or None,
        details.driver_exit_code,
    )
