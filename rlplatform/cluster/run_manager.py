"""RunManager: the queue of runs of a cluster. One detached actor on the head, without user code.

    submit ─▶ queued ─▶ booking ─▶ training ─▶ completed | stopped | failed     (what left is known by its run.json)
                 ▲      (placement   (RunActor)     │
                 └──────── group)    ◀── retry ─────┤ died
                 └────────────── resume ── paused ◀─┘

A thread looks at every run a few times a second and takes it one step further. RunActors and their placement groups are
detached, so they outlive this actor: after a restart it reads its journal, finds them by name, and goes on. What to
start and whether to retry are decided by the pure functions in `scheduling` and `retry`.

A run belongs to who submitted it. A submitter renews its lease every few seconds; when it stops doing so (it was
killed, or its job was stopped), its runs are stopped with a checkpoint, unless they were detached.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rlplatform import names
from rlplatform.artifacts.run_dir import AttemptEnd, RunDir
from rlplatform.artifacts.run_state import AT_REST, FINISHED
from rlplatform.cluster.job_revival import JobWatch
from rlplatform.cluster.retry import Death, decide_retry
from rlplatform.cluster.run_process import ask, book, find_again, is_booked, release, start
from rlplatform.cluster.run_table import SUBMITTER_GONE, Entry, Journal, Submission, status_of
from rlplatform.cluster.scheduling import Active, Waiting, plan_starts
from rlplatform.cluster.session import remote
from rlplatform.errors import RunStateError
from rlplatform.logs import configure, get_logger

LEASE_S = 15.0
"""How long after its last sign of life a submitter counts as gone."""
HEARTBEAT_S = 2.0
TICK_S = 0.25
STOP_PATIENCE_S = 300.0
"""How long a run may take to reach the boundary at which it stops, before its process is killed."""
_RESULT: dict[str, Literal["paused", "stopped"]] = {"pause": "paused", "stop": "stopped"}

_log = get_logger(__name__)


@dataclass(frozen=True)
class ManagerOptions:
    """How a manager works; only tests need other times."""

    lease_s: float = LEASE_S
    tick_s: float = TICK_S
    stop_patience_s: float = STOP_PATIENCE_S
    watch_jobs: bool = False
    """Whether it submits jobs again whose driver died with its node; a Ray of our own has no jobs."""


class RunManager:
    """The cluster's queue of runs. Every method may be called again after a lost answer: none does its work twice."""

    def __init__(self, journal: str, options: ManagerOptions = ManagerOptions()) -> None:
        """Take up what the journal remembers, and begin to look after it."""
        self._options = options
        self._journal = Journal(Path(journal))
        configure(self._journal.path.parent.parent / names.LOGS_DIR / "run_manager")
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {entry.submission.run_path: entry for entry in self._journal.read()}
        self._leases = {entry.submission.owner: self._lease() for entry in self._entries.values()}
        _log.info("takes up %d runs of %s", len(self._entries), journal)
        for entry in self._entries.values():
            entry.wanted_since = time.monotonic()
            if entry.active and not find_again(entry):
                self._lost_meanwhile(entry)
        threading.Thread(target=self._loop, name="run-manager", daemon=True).start()
        if options.watch_jobs:
            JobWatch().start()

    # --- what drivers call --------------------------------------------------------------------------------------------

    def submit(self, submissions: Sequence[dict[str, Any]]) -> None:
        """Queue runs, in order.

        Args:
            submissions: One `Submission` each, as a dictionary.

        Raises:
            RunStateError: A run is being trained by another process, or belongs to another submitter.
        """
        with self._lock:
            new = [one for one in (Submission(**values) for values in submissions) if self._is_new(one)]
            for submission in new:
                self._leases[submission.owner] = self._lease()
                before = self._entries.pop(submission.run_path, None)
                entry = self._entries[submission.run_path] = Entry(submission, attempt=before.attempt if before else 0)
                self._queue(entry, "submitted")
            self._remember()

    def renew(self, owner: str) -> None:
        """Take a submitter's sign of life."""
        with self._lock:
            self._leases[owner] = self._lease()

    def status(self, run_paths: Sequence[str]) -> list[dict[str, Any]]:
        """Return the status of runs by the paths of their folders."""
        with self._lock:
            return [self._status(path) for path in run_paths]

    def runs(self) -> list[dict[str, Any]]:
        """Return the status of every run that is queued, active or paused here."""
        with self._lock:
            return [entry.status() for entry in self._entries.values()]

    def wait(self, run_paths: Sequence[str], timeout_s: float) -> list[dict[str, Any]]:
        """Return the status of runs once all of them have ended or paused, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                entries = [self._entries[path] for path in run_paths if path in self._entries]
                settled = all(entry.phase == "paused" for entry in entries)
            if settled or time.monotonic() >= deadline:
                return self.status(run_paths)
            time.sleep(min(self._options.tick_s, max(0.0, deadline - time.monotonic())))

    def request(self, run_paths: Sequence[str], action: Literal["pause", "stop"], reason: str) -> None:
        """Pause or stop runs: queued ones at once, those that train at their next boundary, with a checkpoint."""
        with self._lock:
            for path in run_paths:
                if path in self._entries:
                    self._entries[path].want(action, reason)
            self._remember()

    def resume(self, run_paths: Sequence[str]) -> None:
        """Queue paused runs again; they go on exactly where they were.

        Raises:
            RunStateError: A run is not paused here. Submit it again instead.
        """
        with self._lock:
            for path in run_paths:
                entry = self._entries.get(path)
                if entry is None:
                    raise RunStateError(f"Run {Path(path).name} is not paused here. Use `rlplatform resume`.")
                if entry.phase == "paused":
                    self._queue(entry, "resumed")
            self._remember()

    def kill(self, run_paths: Sequence[str], reason: str) -> None:
        """End runs at once; what they did since their last checkpoint is lost."""
        with self._lock:
            for path in run_paths:
                if (entry := self._entries.get(path)) and entry.elsewhere:
                    self._forget(entry)
                elif entry:
                    self._settle(entry, "stopped", reason)

    def pid(self) -> int:
        """Return the process that the manager lives in."""
        return os.getpid()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            time.sleep(self._options.tick_s)
            with self._lock:
                self._end_leases()
                self._start_next()
                for entry in list(self._entries.values()):
                    self._guarded(entry)

    def _guarded(self, entry: Entry) -> None:
        try:
            self._advance(entry)
        except Exception as error:  # the border of the run: a full disk or a bad folder must not stop the other runs
            if not entry.run_dir.run_path.exists():
                self._forget(entry)
            elif entry.reason != str(error):
                _log.exception("run %s could not be taken further; it is tried again", entry.run_dir.id)
            entry.reason = str(error)

    def _end_leases(self) -> None:
        now = time.monotonic()
        gone = {owner for owner, until in self._leases.items() if now > until}
        for entry in list(self._entries.values()):
            if entry.submission.owner in gone and not entry.submission.detach:
                if entry.phase == "paused":
                    self._forget(entry)
                elif entry.wanted != "stop":
                    entry.want("stop", SUBMITTER_GONE)
                    self._remember()
        for owner in gone:
            del self._leases[owner]

    def _start_next(self) -> None:
        entries = self._entries.values()
        queue = [e for e in entries if e.phase == "queued" and e.wanted is None and not e.elsewhere]
        active = [Active(e.run_dir.id, e.submission.owner, e.phase == "training") for e in entries if e.active]
        waiting = [Waiting(e.run_dir.id, e.submission.owner, e.submission.limit) for e in queue]
        for entry, decision in zip(queue, plan_starts(waiting, active), strict=True):
            if decision.start:
                self._book(entry)
            else:
                _explain(entry, decision.reason)

    def _advance(self, entry: Entry) -> None:
        """Take one run one step further."""
        if entry.elsewhere:
            self._stand_back(entry)
            return
        if entry.wanted is None and (asked := entry.run_dir.pending_request()) is not None:
            entry.want(asked, f"asked to {asked}")
        if entry.wanted is not None:
            self._carry_out(entry)
        elif entry.phase == "booking" and is_booked(entry):
            start(entry)
            self._remember()
        if entry.phase == "training":
            self._look_at(entry)

    def _carry_out(self, entry: Entry) -> None:
        """Do what is asked of a run; one that trains does it itself, at its next boundary."""
        if entry.phase != "training":
            if entry.wanted == "stop" or entry.phase != "paused":
                self._settle(entry, _RESULT[str(entry.wanted)], entry.reason)
        elif time.monotonic() - entry.wanted_since > self._options.stop_patience_s:
            self._settle(entry, "stopped", f"it did not stop within {self._options.stop_patience_s:g} s and was killed")
        elif not entry.told:
            entry.told = True
            entry.actor.request.remote(entry.wanted)

    # --- the life of a run --------------------------------------------------------------------------------------------

    def _is_new(self, submission: Submission) -> bool:
        """Return whether a submission is not known yet; an error if its run is in other hands."""
        entry, run_dir = self._entries.get(submission.run_path), RunDir(Path(submission.run_path))
        if entry is not None and entry.phase != "paused":
            if entry.submission.owner == submission.owner:
                return False
            raise RunStateError(f"Run {run_dir.id} is already {entry.phase} here, submitted by another process.")
        if run_dir.is_alive():
            raise RunStateError(
                f"Run {run_dir.id} is being trained by another process. Stop it first: "
                f"`rlplatform runs stop {run_dir.id}`."
            )
        return True

    def _queue(self, entry: Entry, reason: str) -> None:
        entry.run_dir.clear_request()
        entry.run_dir.update(state="queued", reason=reason)
        entry.phase, entry.wanted, entry.told, entry.reason = "queued", None, False, reason

    def _book(self, entry: Entry) -> None:
        entry.attempt += 1
        entry.phase = "booking"
        self._remember()  # before anything of that name exists: a manager that comes back must find it
        book(entry)
        _explain(entry, f"waits for {entry.submission.booking}")

    def _look_at(self, entry: Entry) -> None:
        """See how a run that trains is, and take up its end."""
        status = ask(entry)
        if isinstance(status, Death):
            self._died(entry, status)
        elif status is not None:
            entry.progress = status["progress"]
            outcome = status["outcome"]
            if outcome is not None and outcome["state"] == "lost" and entry.run_dir.is_alive():
                _log.warning("run %s waits: %s", entry.run_dir.id, outcome["reason"])
                release(entry)
                entry.phase, entry.reason, entry.elsewhere = "queued", outcome["reason"], True
                self._remember()
            elif outcome is not None and outcome["state"] == "lost":
                self._died(entry, Death("died", outcome["reason"]))
            elif outcome is not None:
                self._settle(entry, outcome["state"], outcome["reason"], recorded=outcome["recorded"])

    def _stand_back(self, entry: Entry) -> None:
        """Leave a run to the process that trains it, and go on with it only if that process dies."""
        entry.elsewhere = entry.run_dir.is_alive()
        if entry.wanted is not None or (not entry.elsewhere and entry.run_dir.read().state in AT_REST):
            self._forget(entry)

    def _died(self, entry: Entry, death: Death) -> None:
        """Queue a run again whose actor is gone, or give it up."""
        if entry.wanted is not None:
            reason = f"{entry.reason}; its process died before it came to that: {death.message}"
            self._settle(entry, _RESULT[entry.wanted], reason)
            return
        decision = decide_retry(death, entry.retries, entry.submission.max_retries)
        _log.warning("run %s: %s", entry.run_dir.id, decision.reason)
        if not decision.retry:
            self._settle(entry, "failed", decision.reason)
            return
        release(entry)
        used, entry.retries = decision.retries - entry.retries, decision.retries
        _record(entry.run_dir, "queued", decision.reason, retries=entry.run_dir.read().retries + used)
        entry.phase, entry.reason = "queued", decision.reason
        self._remember()

    def _settle(self, entry: Entry, state: AttemptEnd, reason: str, recorded: bool = False) -> None:
        """Let go of a run that has ended or paused."""
        release(entry)
        record = entry.run_dir.read()
        if not recorded and record.state not in FINISHED:
            _record(entry.run_dir, state, reason)
        elif recorded and state == _RESULT.get(entry.wanted or ""):
            entry.run_dir.update(reason=entry.reason)  # the run knows that it was asked, the manager knows by whom
        if state == "paused":
            entry.phase, entry.wanted, entry.told, entry.reason = "paused", None, False, reason
            entry.run_dir.clear_request()
            self._remember()
        else:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        release(entry)
        self._entries.pop(entry.submission.run_path, None)
        self._remember()

    # --- memory -------------------------------------------------------------------------------------------------------

    def _lost_meanwhile(self, entry: Entry) -> None:
        """Settle or queue a run whose actor ended while nobody looked."""
        record = entry.run_dir.read()
        if record.state in AT_REST:
            self._settle(entry, cast(AttemptEnd, record.state), record.reason or "", recorded=True)
        elif record.state == "running":
            self._died(entry, Death("died", "its process ended while the RunManager was down"))
        else:
            release(entry)
            entry.phase = "queued"

    def _remember(self) -> None:
        self._journal.write(self._entries.values())

    def _lease(self) -> float:
        return time.monotonic() + self._options.lease_s

    def _status(self, run_path: str) -> dict[str, Any]:
        if entry := self._entries.get(run_path):
            return entry.status()
        record = RunDir(Path(run_path)).read()
        return status_of(record, record.state)


RemoteRunManager: Any = remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=64)(RunManager)


def _explain(entry: Entry, reason: str) -> None:
    """Let run.json say why a run waits, when that changes."""
    if entry.reason != reason:
        entry.reason = reason
        entry.run_dir.update(reason=reason)


def _record(run_dir: RunDir, state: AttemptEnd, reason: str, **fields: Any) -> None:
    """Write into run.json what its own process could not."""
    record = run_dir.read()
    if record.state in AT_REST:
        run_dir.update(state=state, reason=reason, **fields)
    else:
        run_dir.end_attempt(state, record.progress.step, reason, **fields)
