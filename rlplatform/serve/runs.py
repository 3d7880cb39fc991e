"""RunService: the Ray side of experiments. Runs go to the RunManager; what needs torch runs in short tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import ray

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_state import AT_REST, FINISHED
from rlplatform.cluster.resources import booking
from rlplatform.cluster.run_table import Submission
from rlplatform.cluster.session import RaySession, remote
from rlplatform.errors import ResourceError, RlPlatformError, TrainingFailed
from rlplatform.logs import get_logger
from rlplatform.serve.keeper import SHUT_DOWN, Errand, Keeper, keep
from rlplatform.serve.run_view import RunStatus, recorded_status
from rlplatform.serve.settings import ServeSettings
from rlplatform.serve.tasks import describe_environments, evaluate_run, prepare_runs, publish_run
from rlplatform.specs.settings import Settings
from rlplatform.store.database import open_database
from rlplatform.store.experiments import Experiment, ExperimentStore, Wanted

OWNER = "rlplatform-service"
"""Who the RunManager thinks submits the service's runs: the same after a restart, so that no run is taken twice."""
ANSWER_S = 30.0
STATUS_S = 2.0
EVALUATION_S = 50.0
_HEAD = {"node:__internal_head__": 0.001}
_log = get_logger(__name__)
T = TypeVar("T")

# A task needs no CPU of its own: it is short, and training may have booked them all.
_prepare: Any = remote(num_cpus=0)(prepare_runs)
_publish: Any = remote(num_cpus=0, resources=_HEAD)(publish_run)  # SQLite has its writers on one machine.
_evaluate: Any = remote(num_cpus=0)(evaluate_run)
_describe: Any = remote(num_cpus=0)(describe_environments)


class RunService:
    """What routes ask about runs; see `run_view.Runs`."""

    def __init__(self, platform: Settings) -> None:
        """Work with the runs under the platform's home. Ray is connected."""
        self._platform = platform
        self._environments: list[dict[str, Any]] | None = None

    async def statuses(self, run_paths: Sequence[Path]) -> list[RunStatus]:
        """Return how far runs are: from the RunManager, or as recorded while that does not answer."""
        try:
            manager = await asyncio.to_thread(_manager, self._platform.home)
            known = await asyncio.wait_for(manager.status.remote([str(path) for path in run_paths]), STATUS_S)
        except (TimeoutError, ray.exceptions.RayError, ResourceError) as error:
            _log.warning("the RunManager does not answer: %s", error)
            return [recorded_status(path) for path in run_paths]
        return [RunStatus(status["state"], status["step"], status["total_timesteps"]) for status in known]

    async def environments(self) -> list[dict[str, Any]]:
        """Return every environment of the catalog with its spaces."""
        if self._environments is None:
            described: list[dict[str, Any]] = await _answer(_describe.remote(), EVALUATION_S)
            self._environments = described
        return self._environments

    async def evaluate(
        self, run_path: Path, which: Literal["best", "last"], n_episodes: int, seed: int, *, deterministic: bool
    ) -> dict[str, Any]:
        """Play episodes with a run's policy, in another process.

        Raises:
            CheckpointError: The run has no policy yet.
            ResourceError: It takes too long.
        """
        task = _evaluate.remote(self._platform, str(run_path), which, n_episodes, seed, deterministic)
        return await _answer(task, EVALUATION_S)


@dataclass(frozen=True)
class RayErrand:
    """A task under way; an `Errand`."""

    answer: Any

    def result(self) -> Any | None:
        """See `Errand.result`."""
        if not ray.wait([self.answer], timeout=0)[0]:
            return None
        try:
            return ray.get(self.answer)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise ResourceError(f"The process of a task died: {str(error).splitlines()[0]}") from error


class RayWorkers:
    """The keeper's `Workers` on Ray."""

    def __init__(self, platform: Settings) -> None:
        """Work with the runs under the platform's home. Ray is connected."""
        self._platform = platform

    def known(self) -> Mapping[str, str]:
        """See `Workers.known`."""
        return {status["run_id"]: status["state"] for status in self._ask("runs")}

    def submit(self, runs: Sequence[RunDir]) -> None:
        """See `Workers.submit`."""
        submissions = [Submission(str(run.path), OWNER, booking(run.spec()).bundles, detach=True) for run in runs]
        self._ask("submit", [asdict(submission) for submission in submissions])

    def request(self, runs: Sequence[RunDir], action: Wanted, reason: str) -> None:
        """See `Workers.request`."""
        self._ask("request", [str(run.path) for run in runs], action, reason)

    def prepare(self, experiment: Experiment) -> Errand:
        """See `Workers.prepare`."""
        spec, seeds = dict(experiment.spec), list(experiment.seeds)
        return RayErrand(_prepare.remote(self._platform.home, experiment.id, spec, seeds))

    def publish(self, run: RunDir, model: str) -> Errand:
        """See `Workers.publish`."""
        return RayErrand(_publish.remote(self._platform, str(run.path), model))

    def _ask(self, method: str, *arguments: Any) -> Any:
        answer = getattr(_manager(self._platform.home), method).remote(*arguments)
        try:
            return ray.get(answer, timeout=ANSWER_S)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise ResourceError(f"The RunManager does not answer: {str(error).splitlines()[0]}") from error


@contextmanager
def keeping(store: ExperimentStore, settings: ServeSettings, platform: Settings) -> Iterator[None]:
    """Look after experiments during the block, from a thread, unless another replica does."""
    over = threading.Event()
    keeper = Keeper(store, RayWorkers(platform), settings.max_concurrent_experiments, platform.home)
    thread = threading.Thread(target=keep, args=(keeper, over), name="keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(ANSWER_S)


def shutdown(platform: Settings, timeout_s: float) -> int:
    """Have every experiment that trains write its checkpoint; the next start of the service goes on with them.

    To be called when no replica is there any more, by a process that is connected to Ray.

    Args:
        platform: Where files and the database are.
        timeout_s: How long to wait. What is not done by then goes on from the checkpoint before.

    Returns:
        How many runs have paused.
    """
    with closing(open_database(platform)) as database:
        store = ExperimentStore(database)
        paths = [run.run_path for one in store.unfinished() for run in store.runs(one.id)]
    busy = [RunDir(path) for path in paths if RunDir(path).run_path.exists()]
    busy = [run for run in busy if run.read().state not in AT_REST | {"created"}]
    if not busy or timeout_s <= 0:
        return 0
    workers = RayWorkers(platform)
    try:
        workers.request(busy, "pause", SHUT_DOWN)
        ray.get(
            _manager(platform.home).wait.remote([str(run.path) for run in busy], timeout_s),
            timeout=timeout_s + STATUS_S,
        )
    except (RlPlatformError, ray.exceptions.RayError) as error:
        _log.warning("runs could not be paused: %s", error)
    return sum(run.read().state in FINISHED | {"paused"} for run in busy)


def _manager(home: Path) -> Any:
    try:
        return ray.get_actor(names.RUN_MANAGER_ACTOR, names.RAY_NAMESPACE)
    except ValueError:
        from rlplatform.cluster.manager_process import run_manager  # 10 MB, of use only to the first replica

        return run_manager(RaySession(ray.get_runtime_context().gcs_address, started=False), home)


async def _answer(task: Awaitable[T], timeout_s: float) -> T:
    try:
        return await asyncio.wait_for(task, timeout_s)
    except TimeoutError as error:
        raise ResourceError(f"That takes longer than {timeout_s:g} s. Ask for fewer episodes, or later.") from error
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from None
    except ray.exceptions.RayError as error:
        raise ResourceError(f"The process that worked on it died: {str(error).splitlines()[0]}") from error


def _cause(error: ray.exceptions.RayTaskError) -> RlPlatformError:
    """Return what was raised in another process; what is not ours by its last line."""
    if isinstance(error.cause, RlPlatformError):
        return error.cause
    _log.error("a task failed: %s", error)
    return TrainingFailed(f"{type(error.cause).__name__}: {error.cause}")
