"""RunTrainable: a trial inside an actor of Ray Tune. Actors are reused, so that a trial costs its training only."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from rlplatform import names
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.cluster.resources import apply_gpu_limit, gpu_limit
from rlplatform.errors import EnvWorkerDied, RlPlatformError, RunStateError, StorageError
from rlplatform.logs import configure, get_logger
from rlplatform.specs.search import SearchSpec

if TYPE_CHECKING:
    from rlplatform.tune.trial import TrialReport, TrialRuns

SEARCH = "search"
"""Key of a trial's config that holds the path of the search; all other keys are the point."""
ITERATION, DONE = "training_iteration", "done"
"""Tune's own keys."""
VALUE, BEST, STEP, TRAINED = "value", "best_value", names.STEP, "trained_steps"
GENERATION, REASON, FAILED = "generation", "reason", "failed"
"""Keys of what a trial reports to Tune."""

LOCK_PATIENCE_S = 60.0
"""Longer than Ray needs to end the actors of a driver that is gone."""
_log = get_logger(__name__)


class RunTrainable(tune.Trainable):
    """Trains one trial after another; nothing of one is left when the next begins."""

    _spec: SearchSpec | None = None
    _runs: TrialRuns | None = None
    _refused: RlPlatformError | None = None
    """Why the trial cannot take up what it was told to."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial. Whatever can go wrong does so in `step`, where it becomes the trial's reason."""
        self._config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the trial, and take another in the same process."""
        self._leave("its actor was given to another trial")
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next evaluation. A trial that fails reports that, and the actor lives on."""
        try:
            return _result(self._started().advance())
        except EnvWorkerDied as error:
            self._fail(error)
            raise  # The trial is tried again from its newest checkpoint, as after the death of this process.
        except Exception as error:  # the border of the run: whatever it is, it becomes the trial's reason
            reason = str(error) if isinstance(error, RlPlatformError) else f"{type(error).__name__}: {error}"
            _log.exception("trial %s failed", self.trial_id)
            self._fail(error)
            return {DONE: True, FAILED: True, REASON: reason, TRAINED: 0}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write everything that the trial, or one that takes it over, needs to go on."""
        self._started().save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Take up what was saved; of another trial, its networks under this trial's point."""
        try:
            self._opened().adopt(Path(checkpoint))
        except RlPlatformError as error:
            self._refused = error  # Raised here, Tune would drop the checkpoint and begin again; `step` tells it.

    def cleanup(self) -> None:
        """Leave the trial; its newest checkpoint is where it goes on."""
        self._leave("its actor was ended")

    # --- the trial ---------------------------------------------------------------------------------------------------

    def _started(self) -> TrialRuns:
        if self._refused is not None:
            raise self._refused
        runs, deadline = self._opened(), time.monotonic() + LOCK_PATIENCE_S
        while not runs.started:
            try:
                runs.start()
            except RunStateError:
                # The actor of a driver that was killed has not been told yet, and still holds the run.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(1.0)
        return runs

    def _opened(self) -> TrialRuns:
        if self._runs is not None:
            return self._runs
        search = SearchDir(Path(self._config[SEARCH]))
        if self._spec is None:
            if not search.spec_path.exists():
                raise StorageError(
                    f"{search.path} cannot be seen from {os.uname().nodename}. Set {names.HOME_ENV_VAR} to a folder on "
                    "storage that all nodes share."
                )
            configure(search.path / names.LOGS_DIR / f"actor-{os.uname().nodename}-{os.getpid()}", terminal=False)
            self._spec = search.spec()
            apply_gpu_limit(gpu_limit(self._spec.run.resources))
        from rlplatform.tune.trial import TrialRuns  # torch, which the driver needs no more than Tune does

        point = {path: value for path, value in self._config.items() if path in self._spec.space}
        self._runs = TrialRuns(search, self._spec, self.trial_id, point)
        return self._runs

    def _leave(self, reason: str) -> None:
        runs, self._runs, self._refused = self._runs, None, None
        if runs is not None:
            runs.close("paused", reason)

    def _fail(self, error: Exception) -> None:
        runs, self._runs, self._refused = self._runs, None, None
        if runs is not None:
            runs.fail(error)


def _result(report: TrialReport) -> dict[str, Any]:
    return {
        ITERATION: report.iteration,
        DONE: report.done,
        STEP: report.step,
        VALUE: report.value,
        BEST: report.best_value,
        TRAINED: report.trained_steps,
        GENERATION: report.generation,
        REASON: report.reason,
    }
