"""Amendments: what may change in a run that has checkpoints; each change is recorded with the step it was made at.

A larger budget, other stopping rules, and those hyper-parameters that a live model can take. Everything else would
make the checkpoint one of another spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import SpecError
from rlplatform.specs.run import RunSpec

_FREE = frozenset({"budget", "evaluation", "checkpoint", "early_stop", "tracking", "name"})
"""Parts of a spec that do not shape the model or its environments."""
_FREE_RESOURCES = frozenset({"cpus", "gpus", "memory_bytes"})


@dataclass(frozen=True)
class Change:
    """One field that differs."""

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        """Return the change in words."""
        return f"{self.field}: {self.old!r} → {self.new!r}"


def amend_run(run: RunDir, new: RunSpec) -> tuple[Change, ...]:
    """Make `new` the spec of an existing run, recorded as an amendment, and return what changed.

    Raises:
        SpecError: A field differs that is fixed once a run has begun; nothing is changed then.
        RunStateError: The run is training.
    """
    with run.lock():
        old = run.spec()
        found = check_amendment(old, new)
        steps = [checkpoint.manifest.step for checkpoint in CheckpointStore(run.checkpoints_path, 1).all()]
        done, budget = max(steps, default=0), new.budget.total_timesteps
        if budget < done and budget != old.budget.total_timesteps:
            raise SpecError(
                f"`budget.total_timesteps` must be at least the {done} steps that run {run.id} has done, got {budget}."
            )
        if found:
            run.amend(
                new,
                step=done,
                changes={change.field: (change.old, change.new) for change in found},
                note=_horizon(old, new),
            )
        return found


def _horizon(old: RunSpec, new: RunSpec) -> str | None:
    before, after = old.budget.total_timesteps, new.budget.total_timesteps
    return (
        None if before == after else f"schedules now end at step {after}; until this amendment they ended at {before}"
    )


def changes(old: RunSpec, new: RunSpec) -> tuple[Change, ...]:
    """Return what differs between two specs, field by field."""
    return tuple(_differences(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))


def check_amendment(old: RunSpec, new: RunSpec) -> tuple[Change, ...]:
    """Return what differs, if a run of the old spec can go on under the new one.

    Raises:
        SpecError: A field differs that is fixed once a run has begun; the message names it.
    """
    old.algorithm.check_amendment(new.algorithm)
    found = changes(old, new)
    for change in found:
        part, _, field = change.field.partition(".")
        allowed = part in _FREE or (part == "resources" and field in _FREE_RESOURCES) or part == "algorithm"
        if not allowed:
            raise SpecError(
                f"`{change.field}` is fixed once a run has begun, got {change.new!r} for {change.old!r}. "
                "Start a new run, or change only the budget, evaluation, stopping rules and: "
                f"{', '.join(sorted(old.algorithm.amendable))}."
            )
    return found


def _differences(old: Any, new: Any, path: str) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield Change(path, old, new)
