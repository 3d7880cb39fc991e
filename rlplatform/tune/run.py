"""Running a search: the one function to read is `run_search`. What happens inside Ray Tune is in `drive`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlplatform.artifacts.mirror import mirrored
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.artifacts.search_record import best_trial
from rlplatform.cluster.resources import MEMORY, MOST, Booking, check_fits, describe, how_many_fit, trial_booking
from rlplatform.cluster.runner import RayOptions, catch_interrupts
from rlplatform.cluster.session import cluster_nodes, ray_session
from rlplatform.errors import ResourceError
from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_checks import check_search
from rlplatform.tune.progress import OnSearchProgress, SearchResult

HERE = RayOptions()
"""On RAY_ADDRESS, else on a local Ray."""
TUNE_VARIABLES: Mapping[str, str] = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # Each run writes its own metrics.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # A trial that failed reports why, and no value.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # state.py writes what is needed to go on.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


def run_search(
    spec: SearchSpec, home: Path, options: RayOptions = HERE, on_progress: OnSearchProgress | None = None
) -> SearchResult:
    """Search a space on Ray, and wait until that ends.

    Ctrl-C or SIGTERM stops it, with checkpoints to go on from; a second one ends it at once.

    Args:
        spec: What to search.
        home: RLPLATFORM_HOME; on a cluster, on storage that all nodes share.
        options: Where. Its `limit` of trials at once goes before the budget's, its `max_retries` are each trial's.
        on_progress: Called about twice a second.

    Raises:
        SpecError: The search cannot be made; nothing is written then.
        ResourceError: A trial never fits into the cluster, or there is no cluster.
    """
    check_search(spec)
    return _run(None, spec, home, options, on_progress)


def resume_search(
    search: SearchDir, options: RayOptions = HERE, on_progress: OnSearchProgress | None = None
) -> SearchResult:
    """Go on with a search that was stopped, or whose driver died; one that is completed stays as it is.

    Trials that ended are kept, the others go on from their newest checkpoints; sampler and scheduler remember.

    Args:
        search: Its folder.
        options: As for `run_search`.
        on_progress: As for `run_search`.

    Raises:
        RunStateError: Another process drives it.
        CheckpointError: Its search.yaml was changed since it began.
    """
    spec = search.spec()
    if search.read().state == "completed":
        trials = tuple(search.trials())
        return SearchResult(search.id, "completed", "completed before", trials, best_trial(trials, spec.objective))
    return _run(search, spec, search.home, options, on_progress)


def _run(
    search: SearchDir | None,
    spec: SearchSpec,
    home: Path,
    options: RayOptions,
    on_progress: OnSearchProgress | None,
) -> SearchResult:
    asked = trial_booking(spec)
    with _environment(), ray_session(options.address, num_cpus=options.num_cpus, num_gpus=options.num_gpus):
        concurrent = _concurrent(spec, asked, options)
        search = search or SearchDir.create(home, spec)
        with search.lock(), mirrored(search.path) as push, catch_interrupts() as interrupts:
            from rlplatform.tune.drive import Drive  # Ray Tune, which reads our variables when it is imported

            retries = options.max_retries
            return Drive(search, spec, asked, concurrent, retries, interrupts, on_progress, push).run()


def _concurrent(spec: SearchSpec, asked: Booking, options: RayOptions) -> int:
    """Return how many trials train at once: what is asked for, as far as there is room.

    Raises:
        ResourceError: No trial fits, or more memory is asked for than there is; and waiting was not asked for.
    """
    nodes = cluster_nodes()
    wanted = min(options.limit or spec.budget.concurrent or MOST, spec.n_trials)
    if options.wait_for_resources:
        return wanted  # an autoscaler makes room for what is pending
    check_fits(asked, nodes, "A trial")
    in_memory = how_many_fit(Booking(tuple({MEMORY: bundle.get(MEMORY, 0.0)} for bundle in asked.bundles)), nodes)
    if (options.limit or spec.budget.concurrent) and wanted > in_memory:
        raise ResourceError(
            f"{wanted} trials at once ask for {wanted} times {asked}; the memory of the cluster holds {in_memory} of "
            f"them: {describe(nodes)}. Lower `budget.concurrent` or `run.resources.memory_bytes`."
        )
    return min(wanted, how_many_fit(asked, nodes))


@contextmanager
def _environment() -> Iterator[None]:
    """Have Tune do what is ours to decide, and keep quiet, during the block."""
    before = {name: os.environ.get(name) for name in TUNE_VARIABLES}
    os.environ.update(TUNE_VARIABLES)
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
