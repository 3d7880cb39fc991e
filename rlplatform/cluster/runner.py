"""Training on Ray from a program that waits: submit runs, follow them, stop them when asked to."""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from rlplatform.artifacts.job_runs import run_of_this_job
from rlplatform.artifacts.provenance import job_id
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.artifacts.run_state import AT_REST
from rlplatform.cluster.manager_process import run_manager
from rlplatform.cluster.resources import booking, check_fits
from rlplatform.cluster.retry import DEFAULT_MAX_RETRIES
from rlplatform.cluster.run_manager import HEARTBEAT_S
from rlplatform.cluster.run_table import SUBMITTER_GONE, Submission
from rlplatform.cluster.session import RaySession, cluster_nodes, job_runtime_env, ray_session
from rlplatform.errors import ResourceError, RlPlatformError
from rlplatform.logs import get_logger
from rlplatform.specs.run import RunSpec
from rlplatform.train.progress import Progress

POLL_S = 0.5
OnProgress = Callable[[Sequence[Progress]], None]
_PROGRESS_FIELDS = frozenset(field.name for field in fields(Progress))
_log = get_logger(__name__)


@dataclass(frozen=True)
class RayOptions:
    """How runs are trained on Ray."""

    address: str | None = None
    """The cluster's head, `host:port`. None: RAY_ADDRESS, else a local Ray."""
    num_cpus: int | None = None
    """CPUs of a local Ray. None: the machine's."""
    num_gpus: int | None = None
    limit: int | None = None
    """How many of these runs may train together. None: as many as there are resources for."""
    max_retries: int = DEFAULT_MAX_RETRIES
    wait_for_resources: bool = False
    """Queue even what does not fit into the cluster as it is now, for an autoscaler or an operator to add nodes."""
    detach: bool = False
    """Return once the runs are queued, and let them go on without this process. Only on a cluster."""


def train_on_ray(
    specs: Sequence[RunSpec], home: Path, options: RayOptions = RayOptions(), on_progress: OnProgress | None = None
) -> list[RunRecord]:
    """Make a run of every spec and train all of them on Ray; see `run_on_ray`. A job goes on with those it has made.

    Args:
        specs: What to train, one run each.
        home: RLPLATFORM_HOME.
        options: Where and how.
        on_progress: Called about twice a second with the progress of every run.

    Returns:
        The record of every run, in the order of the specs.

    Raises:
        RlPlatformError: A spec cannot be trained, before any run is made.
        ResourceError: A run never fits into the cluster, and waiting was not asked for; or there is no cluster.
    """
    from rlplatform.train.resolve import resolve  # imports torch

    resolved = [resolve(spec) for spec in specs]
    with _session(options) as session:
        if not options.wait_for_resources:
            for spec in resolved:
                check_fits(booking(spec), cluster_nodes(), f"Run {spec.title} with seed {spec.seed}")
        runs = [run_of_this_job(home, spec) or RunDir.create(home, spec) for spec in resolved]
        _train(session, [run for run in runs if run.read().state != "completed"], home, options, on_progress)
        return [run.read() for run in runs]


def run_on_ray(
    runs: Sequence[RunDir], home: Path, options: RayOptions = RayOptions(), on_progress: OnProgress | None = None
) -> list[RunRecord]:
    """Train existing runs on Ray from wherever they are, and wait until all of them have ended or paused.

    Ctrl-C or SIGTERM stops them with a checkpoint, and this waits for that; a second one ends them at once.

    Args:
        runs: The runs; each goes on from its newest good checkpoint, or starts.
        home: RLPLATFORM_HOME.
        options: Where and how.
        on_progress: Called about twice a second with the progress of every run.

    Raises:
        RunStateError: A run is being trained by another process.
        ResourceError: A run never fits into the cluster, and waiting was not asked for; or there is no cluster.
    """
    with _session(options) as session:
        if not options.wait_for_resources:
            for run in runs:
                check_fits(booking(run.spec()), cluster_nodes(), f"Run {run.id}")
        _train(session, runs, home, options, on_progress)
        return [run.read() for run in runs]


@contextlib.contextmanager
def _session(options: RayOptions) -> Iterator[RaySession]:
    with ray_session(options.address, num_cpus=options.num_cpus, num_gpus=options.num_gpus) as session:
        if options.detach and session.started:
            raise ResourceError(
                "Runs can be detached only on a cluster: a Ray that was started for them ends with this process. "
                "Give `--address HOST:PORT`, or leave `--detach` out."
            )
        yield session


def _train(
    session: RaySession, runs: Sequence[RunDir], home: Path, options: RayOptions, on_progress: OnProgress | None
) -> None:
    manager = run_manager(session, home)
    # The same for every attempt of a job, so that a run which trains on is taken over as it is.
    owner = job_id() or secrets.token_hex(8)
    runtime_env = {} if session.started else job_runtime_env()
    with _heartbeat(manager, owner), catch_interrupts() as interrupts:
        while runs:
            submissions = [
                Submission(
                    str(run.path),
                    owner,
                    booking(run.spec()).bundles,
                    runtime_env,
                    options.max_retries,
                    options.limit,
                    options.detach,
                )
                for run in runs
            ]
            _ask(manager.submit.remote([asdict(submission) for submission in submissions]))
            if options.detach:
                return
            _follow(manager, [str(run.path) for run in runs], interrupts, on_progress)
            runs = [run for run in runs if not interrupts.count and _is_abandoned(run.read())]


def _follow(manager: Any, paths: list[str], interrupts: Interrupts, on_progress: OnProgress | None) -> None:
    """Report progress until every run has ended or paused, and pass on what the user or the job asks."""
    told = 0
    while True:
        statuses = _ask(manager.wait.remote(paths, POLL_S))
        if on_progress is not None:
            on_progress([_progress(status) for status in statuses])
        if all(status["state"] in AT_REST for status in statuses):
            return
        if interrupts.count > told:
            told = interrupts.count
            if told == 1:
                _log.info("stopping %d runs with a checkpoint; once more ends them at once", len(paths))
                _ask(manager.request.remote(paths, "stop", f"its submitter got {interrupts.name}"))
            else:
                _ask(manager.kill.remote(paths, f"ended at once by a second {interrupts.name}"))
                return  # a run that another process trains goes on, and is no longer ours to wait for


@dataclass
class Interrupts:
    """How often this process was asked to stop."""

    count: int = 0
    name: str = field(default="SIGINT")

    def take(self, number: int, _: FrameType | None) -> None:
        """Count a signal; a handler as `signal.signal` takes it."""
        self.count += 1
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Interrupts]:
    """Count SIGINT and SIGTERM during the block; outside the main thread, where that is impossible, count nothing."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _heartbeat(manager: Any, owner: str) -> Iterator[None]:
    """Tell the manager during the block, from a thread, that the owner of the runs is there."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(manager.renew.remote(owner))

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(HEARTBEAT_S)


def _ask(answer: ray.ObjectRef[Any]) -> Any:
    """Return the manager's answer; its own errors come back as they were raised."""
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RlPlatformError):
            raise error.cause from None
        raise


def _is_abandoned(record: RunRecord) -> bool:
    """Return whether a run stopped because nobody was there, though now somebody is: its job's next attempt."""
    return record.state == "stopped" and (record.reason or "").startswith(SUBMITTER_GONE)


def _progress(status: dict[str, Any]) -> Progress:
    return Progress(**{name: value for name, value in status.items() if name in _PROGRESS_FIELDS})
