"""RunActor: the Trainer inside one Ray actor. Training has a thread of its own; questions and requests have another.

What crosses the border between this actor, the RunManager and a driver are plain dictionaries: each may run another
version of this package (a job brings its own code), and a class of one need not exist in the other.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import ray

from rlplatform import names
from rlplatform.cluster.session import remote
from rlplatform.errors import EnvWorkerDied, RlPlatformError, RunStateError, TrainingFailed
from rlplatform.logs import configure, get_logger

TRAINING, CONTROL = "training", "control"
Method = TypeVar("Method", bound=Callable[..., Any])

_log = get_logger(__name__)


def _in_group(group: str) -> Callable[[Method], Method]:
    """Have Ray call a method in the threads of a group."""
    method: Any = ray.method  # its type hints turn methods into what only a handle has
    return cast(Callable[[Method], Method], method(concurrency_group=group))


class RunActor:
    """One attempt at one run. The RunManager makes it, asks it, and decides what follows its end."""

    def __init__(self, run_path: str) -> None:
        """Take the path of the run's folder, and do nothing that can fail."""
        self._path = Path(run_path)
        self._lock = threading.Lock()
        self._begun = False
        self._trainer: Any = None
        self._request: Literal["pause", "stop"] | None = None
        self._progress: dict[str, Any] | None = None
        self._outcome: dict[str, Any] | None = None

    @_in_group(TRAINING)
    def run(self) -> None:
        """Train until the run ends. Calling again does nothing, so a manager that came back may call again."""
        with self._lock:
            if self._begun:
                return
            self._begun = True
        self._outcome = self._attempt()

    @_in_group(CONTROL)
    def status(self) -> dict[str, Any]:
        """Return how far the run is; `outcome` is None until it ends."""
        return {"pid": os.getpid(), "begun": self._begun, "progress": self._progress, "outcome": self._outcome}

    @_in_group(CONTROL)
    def request(self, action: Literal["pause", "stop"]) -> None:
        """Ask the run to pause or stop at its next rollout boundary, with a checkpoint."""
        with self._lock:
            self._request = action
            if self._trainer is not None:
                self._trainer.request_stop(action)

    def on_progress(self, progress: Any) -> None:
        """Keep what the Trainer reports; called by the thread that trains."""
        self._progress = asdict(progress)

    def _attempt(self) -> dict[str, Any]:
        """Train, and say how it ended; `lost` is what a death of this process would be: a reason to try again."""
        if not (self._path / names.RUN_FILE).is_file():
            reason = (
                f"{self._path} cannot be seen from {socket.gethostname()}. Set {names.HOME_ENV_VAR} to a folder "
                "on storage that all nodes share."
            )
            return _outcome("failed", reason, recorded=False)
        try:
            configure(self._path / names.LOGS_DIR)
            # Torch and SB3 take seconds to import; until they are here, the actor can already be asked.
            from rlplatform.artifacts.run_dir import RunDir
            from rlplatform.cluster.resources import apply_gpu_limit, gpu_limit
            from rlplatform.train.trainer import Trainer

            trainer = Trainer.open(RunDir(self._path), self)
            apply_gpu_limit(gpu_limit(trainer.spec.resources))
            with self._lock:
                self._trainer = trainer
                if self._request is not None:
                    trainer.request_stop(self._request)
            result = trainer.fit()
        except (EnvWorkerDied, RunStateError) as error:
            # A lock that is held belongs to a process that Ray has given up, or to a person: the manager waits.
            return _outcome("lost", str(error), recorded=False)
        except TrainingFailed as error:
            return _outcome("failed", str(error))
        except Exception as error:  # the border of the run: whatever it is, it becomes the reason in run.json
            _log.exception("run %s failed", self._path.name)
            reason = str(error) if isinstance(error, RlPlatformError) else f"{type(error).__name__}: {error}"
            return _outcome("failed", reason, recorded=False)
        return _outcome(result.state, result.reason)


RemoteRunActor: Any = remote(max_restarts=0, concurrency_groups={TRAINING: 1, CONTROL: 2})(RunActor)


def _outcome(state: str, reason: str, recorded: bool = True) -> dict[str, Any]:
    """Return how an attempt ended; `recorded` tells whether run.json says so already."""
    return {"state": state, "reason": reason, "recorded": recorded}
