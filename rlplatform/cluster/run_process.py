"""The Ray side of one run: placement group and actor, from booking to release. The RunManager decides, this does.

Both are detached and carry the run's name and attempt, so a manager that comes back takes hold of them again.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlplatform import names
from rlplatform.cluster.resources import CPU, GPU, MEMORY
from rlplatform.cluster.retry import Death
from rlplatform.cluster.run_actor import RemoteRunActor
from rlplatform.cluster.run_table import Entry


def book(entry: Entry) -> None:
    """Ask Ray for a run's resources."""
    asked = entry.submission.booking
    bundles = [dict(bundle) for bundle in asked.bundles]
    entry.group = placement_group(bundles, strategy=asked.strategy, name=entry.actor_name, lifetime="detached")
    entry.answer = entry.group.ready()


def start(entry: Entry) -> None:
    """Start a run's actor in the resources that it was given."""
    assert entry.group is not None  # it was booked
    bundle, runtime_env = entry.submission.bundles[0], entry.submission.runtime_env
    options: dict[str, Any] = {"runtime_env": runtime_env} if runtime_env else {}
    entry.actor = RemoteRunActor.options(
        name=entry.actor_name,
        namespace=names.RAY_NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=bundle.get(CPU, 0),
        num_gpus=bundle.get(GPU, 0),
        memory=bundle.get(MEMORY) or None,
        scheduling_strategy=PlacementGroupSchedulingStrategy(entry.group, 0),
        **options,
    ).remote(entry.submission.run_path)
    entry.phase, entry.answer, entry.reason = "training", None, ""
    entry.actor.run.remote()


def is_booked(entry: Entry) -> bool:
    """Return whether a run's resources have been given."""
    return _has_come(entry.answer)


def ask(entry: Entry) -> dict[str, Any] | Death | None:
    """Return what a run's actor says of itself, or how it died; None while the answer is on its way."""
    if entry.answer is None:
        entry.answer = entry.actor.status.remote()
    if not _has_come(entry.answer):
        return None
    answer, entry.answer = entry.answer, None
    try:
        status: dict[str, Any] = ray.get(answer)
    except ray.exceptions.ActorUnavailableError:
        return None  # the network, or a busy node; its death would be told
    except ray.exceptions.RayError as error:
        return death(error)
    if not status["begun"]:
        entry.actor.run.remote()
    return status


def find_again(entry: Entry) -> bool:
    """Take hold of what an active run had when the manager was lost; return whether there is anything."""
    try:
        entry.group = get_placement_group(entry.actor_name)
        entry.actor = ray.get_actor(entry.actor_name, names.RAY_NAMESPACE)
    except ValueError:
        if entry.group is None or entry.phase != "booking":
            return False
        entry.answer = entry.group.ready()
    else:
        entry.phase = "training"
    return True


def release(entry: Entry) -> None:
    """End a run's actor, if there is one, and give its resources back."""
    if entry.actor is not None:
        ray.kill(entry.actor)
    if entry.group is not None:
        remove_placement_group(entry.group)
    entry.actor = entry.group = entry.answer = entry.progress = None


def death(error: ray.exceptions.RayError) -> Death:
    """Return what an error of Ray says about an actor, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayActorError):
        if error.actor_init_failed:
            return Death("setup", lines[-1])
        return Death("preempted" if error.preempted else "died", lines[-1])
    return Death("setup" if isinstance(error, ray.exceptions.RuntimeEnvSetupError) else "died", lines[0])


def _has_come(answer: ray.ObjectRef[Any] | None) -> bool:
    return answer is not None and bool(ray.wait([answer], timeout=0)[0])
