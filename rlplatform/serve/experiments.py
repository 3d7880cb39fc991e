"""What a request may change of an experiment: each a rule over its present state, carried out in one transaction.

    created ─ start ▶ queued ▶ running ▶ completed | stopped | failed ─ resume ▶ queued
                        └─ pause ▶ paused ─ resume ▶ queued

Here only the store changes: a new status where nothing else is needed, else what is `wanted`. The keeper carries that
out (see `keeper`), also when everything was restarted in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlplatform.artifacts.run_state import FINISHED
from rlplatform.errors import Conflict
from rlplatform.serve.auth import Principal
from rlplatform.serve.documents import PARTS, Limits, build_spec, check_seeds, find_environment, limited
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.run import RunSpec
from rlplatform.store.audit import AuditLog
from rlplatform.store.capacity import Capacity
from rlplatform.store.experiments import Experiment, ExperimentFields, ExperimentStore, Kind

GIVEN, WARNINGS, MODEL_NAME = "hyperparameters", "warnings", "model_name"
"""Keys of `Experiment.legacy`: what was asked for, as it was written."""


@dataclass(frozen=True)
class NewExperiment:
    """What is asked for, in the documents' words."""

    name: str
    algorithm: str
    environment: str
    hyperparameters: Mapping[str, Any]
    seeds: Sequence[int]
    total_timesteps: int | None = None
    parts: Mapping[str, Any] | None = None
    description: str = ""
    hypothesis: str = ""
    kind: Kind = "experiment"
    model_name: str | None = None
    """What its policy is published as. None: the experiment's name."""


def model_name(experiment: Experiment) -> str:
    """Return the model that an experiment's policy is published as."""
    if given := experiment.legacy.get(MODEL_NAME):
        return str(given)
    if experiment.kind == "grpo":
        return f"grpo_model_{experiment.id}"
    return re.sub(r"[^a-z0-9._-]+", "-", experiment.name.lower())[:64].strip("-._") or experiment.id


class Experiments:
    """Changes experiments on behalf of who asks."""

    def __init__(self, store: ExperimentStore, audit: AuditLog, settings: ServeSettings) -> None:
        """Change the experiments of a store, and leave a line in the audit log for each change."""
        self.store = store
        self._audit, self._settings = audit, settings

    def create(self, asked: NewExperiment, who: Principal) -> Experiment:
        """Add an experiment; nothing trains yet.

        Raises:
            UnknownNameError: A name is in no catalog.
            SpecError: A value is not valid.
            RequestError: A value is beyond a limit.
        """
        environment = find_environment(asked.environment)
        seeds = check_seeds(asked.seeds)
        spec = build_spec(
            asked.algorithm,
            environment.id,
            asked.hyperparameters,
            seed=seeds[0],
            total_timesteps=asked.total_timesteps,
            parts=asked.parts,
        )
        spec = limited(spec, len(seeds), Limits.of(self._settings, who))
        made = self.store.create(
            name=asked.name,
            algorithm=spec.algorithm.name,
            env_id=spec.env.id,
            spec=spec.model_dump(mode="json"),
            seeds=seeds,
            description=asked.description,
            hypothesis=asked.hypothesis,
            owner=who.name,
            kind=asked.kind,
            legacy={
                GIVEN: dict(asked.hyperparameters),
                WARNINGS: list(environment.warnings),
                MODEL_NAME: asked.model_name,
            },
        )
        self._note(who, "experiment.create", made, name=made.name, algorithm=made.algorithm, env=made.env_id)
        return made

    def start(self, id: str, who: Principal) -> Experiment:
        """Queue a new experiment.

        Raises:
            Conflict: It has been started already.
            LimitReached: As many are at work as may be.
        """

        def change(old: Experiment) -> ExperimentFields:
            if old.status != "created":
                raise Conflict(
                    f"Experiment {id} has been started already: it is {old.status}. "
                    f"{'Resume it instead.' if old.status in FINISHED | {'paused'} else 'Wait for it.'}"
                )
            return {"status": "queued", "wanted": "train", "reason": "waits for its turn"}

        return self._edit(id, change, who, "experiment.start", begins=True)

    def resume(self, id: str, who: Principal, additional_timesteps: int = 0) -> Experiment:
        """Queue an experiment that is paused or over; its runs go on exactly where they were.

        Args:
            id: The experiment.
            who: Asks.
            additional_timesteps: Steps to add to each run's budget.

        Raises:
            Conflict: It has not begun or has not ended, or is complete and gets no more steps.
            LimitReached: As many are at work as may be.
            RequestError: More steps than allowed.
        """

        def change(old: Experiment) -> ExperimentFields:
            if old.status not in FINISHED | {"paused"} or old.wanted is not None:
                doing = f"{old.status}{f', and is asked to {old.wanted}' if old.wanted else ''}"
                raise Conflict(f"Experiment {id} must be paused or over to be resumed, got {doing}. Start or pause it.")
            if old.status == "completed" and not additional_timesteps:
                raise Conflict(f"Experiment {id} is complete. Give `additional_timesteps` to train it further.")
            fields: ExperimentFields = {"status": "queued", "wanted": "train", "reason": "waits for its turn"}
            if additional_timesteps:
                spec = RunSpec.model_validate(old.spec)
                total = spec.budget.total_timesteps + additional_timesteps
                spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"total_timesteps": total})})
                spec = limited(spec, len(old.seeds), Limits.of(self._settings, who))
                fields["spec"] = spec.model_dump(mode="json")
            return fields

        detail = {"additional_timesteps": additional_timesteps}
        return self._edit(id, change, who, "experiment.resume", begins=True, **detail)

    def pause(self, id: str, who: Principal, hyperparameters: Mapping[str, Any] | None = None) -> Experiment:
        """Ask an experiment to pause: its runs write checkpoints, and give back what they booked.

        Args:
            id: The experiment.
            who: Asks.
            hyperparameters: What it is to go on with when it is resumed.

        Raises:
            Conflict: It is not at work.
            SpecError: The hyper-parameters cannot be changed so.
        """

        def change(old: Experiment) -> ExperimentFields:
            fields = self._amended(old, hyperparameters, who) if hyperparameters else ExperimentFields()
            if old.status == "paused" and old.wanted is None:
                return fields
            if old.status not in {"queued", "running"} or old.wanted == "stop":
                raise Conflict(f"Experiment {id} must be queued or running to be paused, got {old.status}.")
            fields.update({"wanted": "pause", "reason": f"asked to pause by {who.name}"})
            return fields

        return self._edit(id, change, who, "experiment.pause", hyperparameters=dict(hyperparameters or {}))

    def stop(self, id: str, who: Principal) -> Experiment:
        """Ask an experiment to stop, with checkpoints.

        Raises:
            Conflict: It is over.
        """

        def change(old: Experiment) -> ExperimentFields:
            if old.status in FINISHED:
                raise Conflict(f"Experiment {id} is not at work: it is {old.status}.")
            reason = f"asked to stop by {who.name}"
            if old.status == "created":
                return {"status": "stopped", "reason": reason}
            return {"wanted": "stop", "reason": reason}

        return self._edit(id, change, who, "experiment.stop")

    def change_hyperparameters(self, id: str, hyperparameters: Mapping[str, Any], who: Principal) -> Experiment:
        """Change options of an experiment that does not train now.

        Raises:
            Conflict: It is at work, or over.
            SpecError: A value is not valid, or what has begun cannot take it; the message says why.
        """

        def change(old: Experiment) -> ExperimentFields:
            if old.status not in {"created", "paused"} or old.wanted is not None:
                raise Conflict(
                    f"Hyper-parameters of experiment {id} can be changed while it is created or paused, "
                    f"got {old.status}. Pause it first."
                )
            return self._amended(old, hyperparameters, who)

        return self._edit(id, change, who, "experiment.change", hyperparameters=dict(hyperparameters))

    def delete(self, id: str, who: Principal) -> None:
        """Forget an experiment; its runs' folders stay.

        Raises:
            Conflict: It is queued, running or paused.
        """
        old = self.store.get(id)
        self.store.delete(id, expected_status=FINISHED | {"created"})
        self._note(who, "experiment.delete", old, name=old.name)

    def _amended(self, old: Experiment, hyperparameters: Mapping[str, Any], who: Principal) -> ExperimentFields:
        given = {**old.legacy.get(GIVEN, {}), **hyperparameters}
        before = RunSpec.model_validate(old.spec)
        data = before.model_dump(mode="json")
        parts = {part: data[part] for part in PARTS}
        options = {**data["algorithm"], **hyperparameters}
        spec = build_spec(old.algorithm, old.env_id, options, seed=before.seed, parts=parts)
        if old.status != "created":
            before.algorithm.check_amendment(spec.algorithm)
            if spec.env != before.env:
                raise Conflict("`n_envs` is fixed once an experiment has begun. Create another one.")
        spec = limited(spec, len(old.seeds), Limits.of(self._settings, who))
        return {"spec": spec.model_dump(mode="json"), "legacy": {**old.legacy, GIVEN: given}}

    def _edit(
        self,
        id: str,
        change: Callable[[Experiment], ExperimentFields],
        who: Principal,
        action: str,
        *,
        begins: bool = False,
        **detail: Any,
    ) -> Experiment:
        edited = self.store.edit(id, change, within=self._capacity(who) if begins else ())
        self._note(who, action, edited, **detail)
        return edited

    def _capacity(self, who: Principal) -> tuple[Capacity, ...]:
        own = () if who.max_runs is None else (Capacity(who.max_runs, who.name),)
        if self._settings.queue_experiments:
            return own
        return (Capacity(self._settings.max_concurrent_experiments), *own)

    def _note(self, who: Principal, action: str, experiment: Experiment, **detail: Any) -> None:
        self._audit.record(who.name, action, experiment.id, {"status": experiment.status, **detail})
