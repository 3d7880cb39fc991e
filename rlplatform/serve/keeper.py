"""Keeper: takes every experiment that has begun one step further, a few times a second, until it is over.

    wanted: train ─▶ runs are made, or made ready to go on ─▶ wanted: nothing ─▶ all runs over ─▶ published, over
            pause, stop ─▶ runs are asked, and waited for ─▶ paused, stopped

It remembers nothing that matters. What is asked for stands in the store; how far a run is, in its run.json; who trains
it, with the RunManager. A run that should be trained and is not with the RunManager is handed to it again, whatever was
restarted, and a run that is with it already is not taken twice (see `RunManager.submit`). Every replica of the service
has a keeper, and a lock on a file of the home lets one of them act.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from rlplatform.artifacts.locks import file_lock
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_state import FINISHED, RunState
from rlplatform.errors import Conflict, RlPlatformError
from rlplatform.logs import get_logger
from rlplatform.serve.errors import without_folder
from rlplatform.serve.experiments import model_name
from rlplatform.specs.run import RunSpec
from rlplatform.store.experiments import Experiment, ExperimentFields, ExperimentStore, Wanted
from rlplatform.train.amend import amend_run

TICK_S = 0.5
MAX_ERRANDS = 2
"""Errands at once: each takes a process that imports torch, which the next one uses again."""
LOCK_FILE = ".keeper.lock"
SHUT_DOWN = "the service was shut down"
"""Why runs are paused that go on when it starts again."""
_log = get_logger(__name__)


class Errand(Protocol):
    """Work in another process."""

    def result(self) -> Any | None:
        """Return what came of it; None while it is under way. What went wrong is raised."""


class Workers(Protocol):
    """What the keeper asks of Ray."""

    def known(self) -> Mapping[str, str]:
        """Return the state of every run that the RunManager has, by id."""

    def submit(self, runs: Sequence[RunDir]) -> None:
        """Hand runs to the RunManager; those it trains already stay as they are."""

    def request(self, runs: Sequence[RunDir], action: Wanted, reason: str) -> None:
        """Have the RunManager pause or stop runs."""

    def prepare(self, experiment: Experiment) -> Errand:
        """Make the runs of an experiment; the result is `[(run_path, seed), …]`. Made ones are found again."""

    def publish(self, run: RunDir, model: str) -> Errand:
        """Publish a run's policy, unless it has been; the result is the version's reference, or "" without a policy."""


class Keeper:
    """Looks after the experiments of a store."""

    def __init__(self, store: ExperimentStore, workers: Workers, max_concurrent: int, home: Path) -> None:
        """Let at most `max_concurrent` experiments of a home be at work together; others wait for their turn."""
        self._store, self._workers, self._max_concurrent, self.home = store, workers, max_concurrent, home
        self._errands: dict[str, Errand] = {}
        self._asked: set[tuple[str, Wanted]] = set()

    def tick(self) -> None:
        """Take each experiment one step further."""
        unfinished = self._store.unfinished()
        moving = [one for one in unfinished if one.wanted is not None or one.status != "paused"]
        ids = {one.id for one in moving}
        self._errands = {id: errand for id, errand in self._errands.items() if id in ids}  # Others wait for nothing.
        if not moving:
            return
        # Before any run.json is read: then a run that is not known and not over is nobody's.
        known = self._workers.known()
        at_work = sum(one.status != "paused" and one.wanted != "train" for one in unfinished)
        for experiment in moving:
            begins = experiment.wanted == "train"
            if begins and at_work >= self._max_concurrent:
                self._set(experiment, reason=f"{at_work} experiments are at work, the limit is {self._max_concurrent}")
                continue
            at_work += begins
            self._guarded(experiment, known)

    def _guarded(self, experiment: Experiment, known: Mapping[str, str]) -> None:
        try:
            self._advance(experiment, known)
        except Exception as error:  # The border of the run: one that cannot be taken further must not stop the others.
            if experiment.reason != without_folder(str(error), self.home):
                _log.exception("experiment %s could not be taken further; it is tried again", experiment.id)
                self._set(experiment, reason=str(error))

    def _advance(self, experiment: Experiment, known: Mapping[str, str]) -> None:
        runs = [RunDir(run.run_path) for run in self._store.runs(experiment.id)]
        if gone := [run.id for run in runs if not run.run_path.exists()]:
            reason = f"the folder of its run {gone[0]} is gone"
            self._set(experiment, status="failed", wanted=None, reason=reason)
        elif experiment.wanted == "train":
            self._begin(experiment, runs)
        elif experiment.wanted is None:
            self._look(experiment, runs, known)
        else:
            self._wind_down(experiment, experiment.wanted, runs, known)

    # --- what is wanted -----------------------------------------------------------------------------------------------

    def _begin(self, experiment: Experiment, runs: Sequence[RunDir]) -> None:
        """Make an experiment's runs, or make those that it has ready to go on."""
        if len(runs) < len(experiment.seeds):
            try:
                made = self._errand(experiment, lambda: self._workers.prepare(experiment))
            except RlPlatformError as error:
                self._set(experiment, status="failed", wanted=None, reason=str(error))
                return
            for path, seed in made or ():
                with suppress(Conflict):  # Noted before a restart.
                    self._store.add_run(experiment.id, Path(path).name, Path(path), seed)
            if not made:
                return
        spec = RunSpec.model_validate(experiment.spec)
        for run in runs:
            _make_ready(run, spec)
        self._set(experiment, wanted=None)

    def _wind_down(
        self, experiment: Experiment, action: Wanted, runs: Sequence[RunDir], known: Mapping[str, str]
    ) -> None:
        """Have an experiment's runs pause or stop, and see whether they have."""
        if not runs:
            self._errands.pop(experiment.id, None)  # They are being made; when it goes on, they are found.
        rest = FINISHED | {"paused"} if action == "pause" else FINISHED
        busy = [run for run in runs if run.read().state not in rest]
        reason = experiment.reason or f"asked to {action}"
        with_manager = [run for run in busy if run.id in known]
        if with_manager and (experiment.id, action) not in self._asked:
            self._workers.request(with_manager, action, reason)
            self._asked.add((experiment.id, action))
        for run in busy:
            if run.id in known:
                continue
            if run.is_alive():  # Its RunManager is gone, and it is not yet.
                run.request("pause" if action == "pause" else "stop")
            else:
                _lay_down(run, action, reason)
        if all(run.read().state in rest for run in busy):
            self._asked.discard((experiment.id, action))
            if runs and all(run.read().state in FINISHED for run in runs):
                self._finish(experiment, runs)
            else:
                status: RunState = "paused" if action == "pause" else "stopped"
                self._set(experiment, status=status, wanted=None, reason=reason)

    # --- what goes its way --------------------------------------------------------------------------------------------

    def _look(self, experiment: Experiment, runs: Sequence[RunDir], known: Mapping[str, str]) -> None:
        """See how an experiment is, and hand over runs that nobody trains."""
        records = {run: run.read() for run in runs}
        going = [run for run in runs if records[run].state not in FINISHED]
        if not going:
            self._finish(experiment, runs)
            return
        laid_down = [run for run in going if records[run].state == "paused" and records[run].reason != SHUT_DOWN]
        if len(laid_down) == len(going):  # Somebody did so beside the service, such as `rlplatform runs pause`.
            self._set(experiment, status="paused", reason=records[going[0]].reason)
            return
        lost = [run for run in going if run not in laid_down and known.get(run.id, "paused") == "paused"]
        if lost:
            self._workers.submit(lost)
        trains = next((run for run in going if records[run].state == "running"), None)
        shown = records[trains or going[0]]
        self._set(experiment, status="running" if trains else "queued", reason=shown.reason)

    def _finish(self, experiment: Experiment, runs: Sequence[RunDir]) -> None:
        """Publish the policy of an experiment whose runs are all over, and close it."""
        records = {run: run.read() for run in runs}
        states = {record.state for record in records.values()}
        status: RunState = "failed" if "failed" in states else "stopped" if "stopped" in states else "completed"
        decisive = next(run for run in runs if records[run].state == status)
        reason = records[decisive].reason or ""
        if status != "failed" and experiment.wanted != "stop":
            best = max(runs, key=lambda run: score(records[run].result))
            self._set(experiment, reason="its policy is being published")
            try:
                reference = self._errand(experiment, lambda: self._workers.publish(best, model_name(experiment)))
            except RlPlatformError as error:
                reference, reason = "", f"{reason}; its policy could not be published: {error}"
            if reference is None:
                return
            reason = f"{reason}; its policy is {reference}" if reference else reason
        if experiment.started_at is None:  # It was over between two looks.
            self._set(experiment, status="running")
        self._set(experiment, status=status, wanted=None, reason=reason)

    # --- tools --------------------------------------------------------------------------------------------------------

    def _errand(self, experiment: Experiment, begin: Any) -> Any | None:
        """Return the result of an experiment's errand, begun if it is not; None while it is under way."""
        if experiment.id not in self._errands:
            if len(self._errands) >= MAX_ERRANDS:
                return None
            self._errands[experiment.id] = begin()
        try:
            result = self._errands[experiment.id].result()
        except BaseException:
            del self._errands[experiment.id]
            raise
        if result is not None:
            del self._errands[experiment.id]
        return result

    def _set(self, experiment: Experiment, **fields: Any) -> None:
        """Change an experiment, unless something else has been asked of it meanwhile."""
        if fields.get("reason"):
            fields["reason"] = without_folder(fields["reason"], self.home)
        if all(getattr(experiment, name) == value for name, value in fields.items()):
            return

        def change(now: Experiment) -> ExperimentFields:
            return cast(ExperimentFields, fields) if now.wanted == experiment.wanted else {}

        self._store.edit(experiment.id, change)


def score(result: Mapping[str, Any] | None) -> float:
    """Return how good a run's policy is, from its record's result: by its final evaluation, else its best one."""
    final, best = (result or {}).get("final"), (result or {}).get("best_return")
    if final:
        return float(final["return_mean"])
    return float("-inf") if best is None else float(best)


def keep(keeper: Keeper, over: threading.Event) -> None:
    """Let a keeper act until `over`, while no other one of the same home does."""
    keeper.home.mkdir(parents=True, exist_ok=True)
    while not over.is_set():
        with file_lock(keeper.home / LOCK_FILE, patience_s=0) as got:
            while got and not over.wait(TICK_S):
                try:
                    keeper.tick()
                except RlPlatformError as error:  # Such as a RunManager that is being restarted, or a busy database.
                    _log.warning("experiments wait: %s", error)
        over.wait(TICK_S)


def _make_ready(run: RunDir, spec: RunSpec) -> None:
    """Queue a run again that has something to do under its experiment's spec."""
    old = run.spec()
    more = spec.budget.total_timesteps > old.budget.total_timesteps
    state = run.read().state
    if state == "completed" and not more:
        return
    if state in FINISHED or state == "paused":
        run.update(state="queued", reason="resumed")
    new = old.model_copy(update={"algorithm": spec.algorithm, "budget": spec.budget})
    if new != old:
        amend_run(run, new)


def _lay_down(run: RunDir, action: Wanted, reason: str) -> None:
    """Write into run.json that a run pauses or stops which no process trains."""
    record = run.read()
    if record.state == "created" and action == "pause":
        record = run.update(state="queued")
    state: Literal["paused", "stopped"] = "paused" if action == "pause" else "stopped"
    if record.state in {"created", "paused"}:
        run.update(state=state, reason=reason)
    else:
        run.end_attempt(state, record.progress.step, reason)
