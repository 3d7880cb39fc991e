"""The client of a cluster's jobs, on Ray's Jobs API, with ids that are safe to submit again.

What else that API lacks, a deadline and retries, happens beside the job's command, in `job_supervisor`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlplatform.cluster.dashboard import connected, talking_to
from rlplatform.cluster.job_supervision import Limits
from rlplatform.errors import JobError, unknown_name
from rlplatform.names import JOB_COMMAND_METADATA, JOB_NAME_METADATA

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
START_PATIENCE_S = 60.0
"""How long a head that has just been started may take until it can start jobs."""
POLL_S = 0.5
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PYTHON = re.compile(r"python[\d.]*")
_RAYS_MARGIN_S = 10
"""How much longer Ray waits than the supervisor, so that it is the latter who ends a command that does not stop."""
_REVIVED = ".revived-"


@dataclass(frozen=True)
class JobRequest:
    """What is asked of a cluster."""

    job_id: str
    command: tuple[str, ...]
    limits: Limits
    working_dir: str | None = None
    """Folder (or archive's address) of the code that the job runs in. None: what is installed there."""
    env_vars: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.command:
            raise JobError("A job needs a command: `rlplatform jobs submit -- python jobs/train.py SPEC.yaml`.")
        if not _ID.fullmatch(self.job_id):
            raise JobError(
                f"`--id` must be 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter or digit, "
                f"got {self.job_id!r}."
            )

    def entrypoint(self) -> str:
        """Return the line that Ray runs: the supervisor, by the command's own Python if it has one."""
        first = self.command[0]
        python = first if _PYTHON.fullmatch(Path(first).name) else "python"
        options = ["--job", self.job_id, "--retries", str(self.limits.retries)]
        options += [] if self.limits.deadline_s is None else ["--deadline-s", f"{self.limits.deadline_s:g}"]
        options += ["--stop-wait-s", f"{self.limits.stop_wait_s:g}"]
        return shlex.join([python, "-m", "rlplatform.cluster.job_supervisor", *options, "--", *self.command])

    def runtime_env(self) -> dict[str, object]:
        """Return the code and variables that the job runs with."""
        ray_waits = {"RAY_JOB_STOP_WAIT_TIME_S": str(round(self.limits.stop_wait_s) + _RAYS_MARGIN_S)}
        code = {"working_dir": self.working_dir} if self.working_dir is not None else {}
        return {**code, "env_vars": {**ray_waits, **self.env_vars}}


@dataclass(frozen=True)
class Job:
    """What is known of a job."""

    id: str
    """Id of its newest submission; another one than the name where the job was revived after the loss of its node."""
    name: str
    """The id that it was submitted under, which its runs know and commands take."""
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    command: str
    entrypoint: str
    exit_code: int | None
    message: str
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ENDED

    @property
    def seconds(self) -> float | None:
        """How long it has run."""
        if self.started_at is None:
            return None
        return ((self.ended_at or datetime.now(UTC)) - self.started_at).total_seconds()


@dataclass(frozen=True)
class Submitted:
    """A job, and whether this submission made it or found it."""

    job: Job
    new: bool


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str | None = None) -> None:
        """Connect to a cluster's dashboard.

        Args:
            address: Such as `http://10.0.0.1:8265`. None: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or this machine's.

        Raises:
            ResourceError: There is no cluster at the address, or it refuses the token.
        """
        self._client, self.address = connected(address)

    def submit(self, request: JobRequest) -> Submitted:
        """Start a job, unless one with its id and the same command is there: then that one is returned as it is.

        Raises:
            JobError: The id stands for another command, or the code cannot be sent.
            ResourceError: The cluster does not answer, or cannot start jobs.
        """
        if found := self._find(request):
            return Submitted(found, new=False)
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                with talking_to(self.address):
                    self._client.submit_job(
                        entrypoint=request.entrypoint(),
                        submission_id=request.job_id,
                        runtime_env=request.runtime_env(),
                        metadata={JOB_COMMAND_METADATA: shlex.join(request.command), JOB_NAME_METADATA: request.job_id},
                    )
            except JobError as error:
                if "already exists" in str(error) and (found := self._find(request)):
                    return Submitted(found, new=False)  # somebody else was quicker
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
            else:
                return Submitted(self.get(request.job_id), new=True)

    def all(self) -> list[Job]:
        """Return the cluster's jobs, the newest first; programs that connect without the Jobs API are none.

        A job that was revived is there once, as its newest submission: Ray takes the lost ones for running or failed.
        """
        with talking_to(self.address):
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        newest = {job.name: job for job in sorted(found, key=lambda job: revivals(job.id, job.name))}
        never = datetime.min.replace(tzinfo=UTC)
        return sorted(newest.values(), key=lambda job: (job.started_at or never, job.id), reverse=True)

    def get(self, job: str) -> Job:
        """Find a job by its id, or the unique beginning of its id; of one that was revived, any of its ids will do.

        Raises:
            UnknownNameError: There is no such job.
            JobError: Several begin so.
        """
        known = {one.name: one for one in self.all()}
        job = job if job in known else job.rpartition(_REVIVED)[0] or job
        if job in known:
            return known[job]
        begins = [one for one in known if job and one.startswith(job)]
        if len(begins) > 1:
            raise JobError(
                f"{len(begins)} jobs begin with {job!r}: {', '.join(sorted(begins)[:5])}. Give more of the id."
            )
        if not begins:
            raise unknown_name("job", job, known, "rlplatform jobs list")
        return known[begins[0]]

    def log(self, job: Job) -> str:
        """Return what a job has printed so far."""
        with talking_to(self.address):
            return str(self._client.get_job_logs(job.id))

    def follow(self, job: Job, write: Callable[[str], object]) -> Job:
        """Pass on what a job has printed and prints, until it ends; return it as it ended."""

        async def pump() -> None:
            async for lines in self._client.tail_job_logs(job.id):
                write(lines)

        with talking_to(self.address):
            asyncio.run(pump())
        return self.wait(job)

    def wait(self, job: Job) -> Job:
        """Return a job once it has ended."""
        while not (now := self.get(job.name)).ended:
            time.sleep(POLL_S)
        return now

    def stop(self, job: Job) -> None:
        """Ask a job to stop; its command writes its checkpoints first. One that has just lost its node is waited for.

        Raises:
            JobError: It has ended already, or its node is gone and nobody submits it again.
        """
        if job.ended:
            raise JobError(f"Job {job.name} is over: it is {job.status}. There is nothing to stop.")
        deadline = time.monotonic() + START_PATIENCE_S
        while not self._stopped(job.name):
            if time.monotonic() > deadline:
                raise JobError(
                    f"Job {job.name} has no process that could be stopped: it was lost with its node. Its runs stop by "
                    "themselves; `rlplatform runs list` shows them."
                )
            time.sleep(POLL_S)

    def _stopped(self, name: str) -> bool:
        """Ask the newest submission of a job to stop; return False where Ray knows no process of it."""
        now = self.get(name)
        with talking_to(self.address):
            return now.ended or self._client.stop_job(now.id)

    def _find(self, request: JobRequest) -> Job | None:
        """Return the job that a request made before; an error if its id stands for something else."""
        found = next((job for job in self.all() if job.name == request.job_id), None)
        if found is not None and found.entrypoint != request.entrypoint():
            raise JobError(
                f"There is a job {found.name!r} with another command or other limits: {found.entrypoint}. "
                f"Asked for: {request.entrypoint()}. Give another `--id`, or leave it out."
            )
        return found


def revivals(submission_id: str, job: str) -> int:
    """Return how often a job had been submitted again after the loss of its node, this submission included."""
    number = submission_id.removeprefix(job + _REVIVED)
    return int(number) if number.isdecimal() and number != submission_id else 0


def revived_id(job: str, revival: int) -> str:
    """Return the id under which a job is submitted again; two who do so get the same, and one of them is refused."""
    return f"{job}{_REVIVED}{revival}"


def new_job_id() -> str:
    """Return an id that no job has."""
    return f"job-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def _job(details: JobDetails) -> Job:
    status = getattr(details.status, "value", details.status)
    metadata = details.metadata or {}
    return Job(
        id=str(details.submission_id),
        name=metadata.get(JOB_NAME_METADATA, str(details.submission_id)),
        status=str(status),
        command=metadata.get(JOB_COMMAND_METADATA, details.entrypoint),
        entrypoint=details.entrypoint,
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip(),
        started_at=_time(details.start_time),
        ended_at=_time(details.end_time),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
