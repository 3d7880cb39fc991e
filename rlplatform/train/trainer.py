"""Trainer: one run, from its folder to its result. The one function to read is `Trainer.fit`; it knows nothing of Ray.

A laptop, a Ray actor, a Tune trial and an HTTP experiment all call the same `step`. One step is one rollout and one
update, then whatever has fallen due at that boundary, in this order: log, evaluate, checkpoint. What falls due
depends on the number of environment steps alone, so that a resumed run does the same things at the same steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rlplatform import names
from rlplatform.artifacts.checkpoint import Checkpoint, CheckpointStore, FileRecord, Kind
from rlplatform.artifacts.jsonl import JsonlWriter, read_jsonl
from rlplatform.artifacts.mirror import Push, mirrored
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_record import RunProgress
from rlplatform.envs.make import reward_threshold
from rlplatform.errors import CheckpointError, RlPlatformError, TrainingFailed
from rlplatform.logs import get_logger
from rlplatform.specs.run import RunSpec
from rlplatform.train.best_policy import restore_best, save_best, write_best
from rlplatform.train.early_stop import EvaluationHistory, after_evaluation
from rlplatform.train.evaluate import EvalResult, evaluate
from rlplatform.train.initialize import start_from_policy
from rlplatform.train.metrics import JsonlSink, Metrics, Sink, TensorBoardSink, WandbSink
from rlplatform.train.metrics_csv import write_csv
from rlplatform.train.normalizer import Normalizer
from rlplatform.train.policy_folder import Policy
from rlplatform.train.progress import Listener, Progress, SilentListener
from rlplatform.train.resolve import resolve
from rlplatform.train.seeding import derive_seed, preserved_rng
from rlplatform.train.session import TrainingSession

Request = Literal["pause", "stop"]
PULSE_S = 0.5
"""Seconds between two looks at requests and two reports of progress."""
RECORD_S = 5.0
"""Seconds between two writes of the progress into run.json."""

_EVALUATION = "evaluation"
_log = get_logger(__name__)


@dataclass(frozen=True)
class RunResult:
    """How an attempt at a run ended."""

    run_id: str
    state: Literal["completed", "paused", "stopped"]
    step: int
    reason: str
    final: EvalResult | None = None
    """Evaluation of the last policy; only of a completed run."""
    best_return: float | None = None
    """Highest mean return among the evaluations during training."""

    def summary(self) -> dict[str, Any]:
        """Return what run.json keeps of the result: everything but the single episodes."""
        final = None
        if self.final is not None:
            final = {key: value for key, value in asdict(self.final).items() if key not in ("returns", "lengths")}
        return {"step": self.step, "reason": self.reason, "best_return": self.best_return, "final": final}


class Trainer:
    """One run. Make it with `create` or `open`, then call `fit` once."""

    def __init__(self, run_dir: RunDir, spec: RunSpec, listener: Listener) -> None:
        """Use `create` or `open` instead."""
        self.run_dir, self.spec = run_dir, spec
        self.session: TrainingSession
        self._listener = listener
        self._store = CheckpointStore(run_dir.checkpoints_path, spec.checkpoint.keep_last)
        self._history = EvaluationHistory()
        self._offsets = (0, 0)
        self._last_evaluation: EvalResult | None = None
        self._request: Request | None = None
        self._push: Push = lambda: None
        self._early_stop = ""
        self.evaluations: list[tuple[int, EvalResult]] = []
        """Step and result of every evaluation during training."""
        self.result: RunResult | None = None
        """How the attempt ended, once it has."""
        self._step = self._began_step = 0
        self._began_at = time.monotonic()
        self._pulse_at = self._record_at = 0.0

    @classmethod
    def create(cls, spec: RunSpec, home: Path, listener: Listener | None = None) -> Trainer:
        """Make the folder of a new run under `home`, with every `auto` of its environments decided.

        Raises:
            RlPlatformError: The environment, its packages, or the algorithm's fit to it; nothing is written then.
        """
        spec = resolve(spec)
        return cls(RunDir.create(home, spec), spec, listener or SilentListener())

    @classmethod
    def open(cls, run_dir: RunDir, listener: Listener | None = None) -> Trainer:
        """Take up an existing run; `fit` goes on from its newest undamaged checkpoint, or starts at step 0."""
        return cls(run_dir, run_dir.spec(), listener or SilentListener())

    # --- the run -----------------------------------------------------------------------------------------------------

    def fit(self) -> RunResult:
        """Train until the budget is done, a rule or somebody stops it; the run's folder then says how it ended.

        Raises:
            RunStateError: Another process is training this run.
            RlPlatformError: The run failed for a reason its user can mend.
            TrainingFailed: The run failed; the error log holds the traceback.
        """
        with self.attempt():
            return self._train()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Be the one who trains this run during the block, from its newest checkpoint on.

        For a caller with a loop of its own: `step` in it, then `complete` or `leave`. The run's folder then says how
        the block ended, also if it ended by an exception, which comes out as `fit` would raise it.
        """
        with self.run_dir.lock(), mirrored(self.run_dir.path) as self._push:
            if self.run_dir.read().state not in ("created", "queued"):
                self.run_dir.clear_request()  # It was to an attempt that died before it could answer.
            try:
                with self._started():
                    yield
            except (Exception, KeyboardInterrupt) as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                reason = str(error) if isinstance(error, RlPlatformError) else f"{type(error).__name__}: {error}"
                if interrupted:
                    reason = "interrupted at once, without a checkpoint"
                self.run_dir.end_attempt("stopped" if interrupted else "failed", self._step, reason)
                if interrupted or isinstance(error, RlPlatformError):
                    raise
                _log.exception("run %s failed", self.run_dir.id)
                raise TrainingFailed(f"Run {self.run_dir.id} failed. {reason}") from error
            self.run_dir.clear_request()
            result = self.result or RunResult(self.run_dir.id, "paused", self._step, "left without a checkpoint")
            self.run_dir.end_attempt(
                result.state, result.step, result.reason, result=result.summary(), progress=self._run_progress()
            )

    def request_stop(self, request: Request = "stop") -> None:
        """Ask, from any thread, that the run stop or pause at the next rollout boundary, with a checkpoint."""
        self._request = request

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        step, total = self._step, self.spec.budget.total_timesteps
        elapsed = time.monotonic() - self._began_at
        fps = (step - self._began_step) / elapsed if elapsed > 0 and step > self._began_step else None
        evaluation = self._last_evaluation
        return Progress(
            self.run_dir.id,
            "running",
            step,
            total,
            fps,
            self.session.rollout_return,
            evaluation.return_mean if evaluation else None,
            max(0, total - step) / fps if fps else None,
        )

    def step(self) -> None:
        """Advance by one rollout and one update, then do what has fallen due."""
        before = self._step
        self.session.advance()
        self._step = self.session.step

        def due(every: int | None) -> bool:
            return every is not None and self._step // every > before // every

        if due(self.spec.tracking.log_every_steps):
            self.session.log()
        if due(self.spec.evaluation.every_steps):
            self._evaluate()
        if due(self.spec.checkpoint.every_steps) and not self.done:
            self.checkpoint("scheduled")

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train: the budget's steps are done, or a rule stopped the run early."""
        return self.session.done or bool(self._early_stop)

    @property
    def time_is_up(self) -> bool:
        """Whether the time limit of this attempt was reached."""
        limit = self.spec.budget.time_limit_s
        return limit is not None and time.monotonic() - self._began_at >= limit

    def _train(self) -> RunResult:
        while not self.done:
            self._pulse()
            if self._request is not None:
                return self.leave("paused" if self._request == "pause" else "stopped", f"asked to {self._request}")
            if self.time_is_up:
                return self.leave("stopped", f"the time limit of {self.spec.budget.time_limit_s:g} s was reached")
            self.step()
        return self.complete()

    def leave(self, state: Literal["paused", "stopped"], reason: str) -> RunResult:
        """End the attempt before the budget is done, with a checkpoint where environments can be saved anywhere."""
        if not self.session.rebuilds_envs:  # else it goes on from the last scheduled checkpoint, which is exact
            self.checkpoint("stop")
        return self._result(state, reason, None)

    def complete(self) -> RunResult:
        """End the run: its final checkpoint, its final evaluation, its tables."""
        newest = self._newest_checkpoint()
        if newest is None or newest.manifest.step != self.session.step or newest.manifest.kind != "final":
            self.session.log()
            self.checkpoint("final")
        n_episodes = self.spec.evaluation.final_episodes
        final = self._measure("final evaluation", n_episodes) if n_episodes else None
        if self.spec.tracking.csv:
            write_csv(self.run_dir.metrics_path, self.run_dir.metrics_csv_path)
        return self._result("completed", self._early_stop or "the budget's steps are done", final)

    def _result(
        self, state: Literal["completed", "paused", "stopped"], reason: str, final: EvalResult | None
    ) -> RunResult:
        self._listener.on_progress(replace(self.progress, state=state))
        best = self._history.best_return
        self.result = RunResult(self.run_dir.id, state, self.session.step, reason, final, best)
        return self.result

    # --- starting and ending -----------------------------------------------------------------------------------------

    @contextmanager
    def _started(self) -> Iterator[None]:
        """Build the session, take it to the newest checkpoint, and close everything in the end."""
        with ExitStack() as stack:
            self._records = stack.enter_context(closing(JsonlWriter(self.run_dir.metrics_path)))
            self._evaluations = stack.enter_context(closing(JsonlWriter(self.run_dir.evaluations_path)))
            self._metrics = stack.enter_context(closing(Metrics()))
            self.session = stack.enter_context(closing(TrainingSession(self.spec, self._metrics)))
            self._restore()
            self._step = self._began_step = self.session.step
            self._records.truncate(self._offsets[0])
            self._evaluations.truncate(self._offsets[1])
            self.evaluations = list(_evaluations(self.run_dir.evaluations_path))
            with preserved_rng():  # whatever a sink draws when it begins
                for sink in self._sinks():
                    self._metrics.add(sink)
            self.run_dir.begin_attempt(self._step)
            self._began_at = time.monotonic()
            yield

    def _restore(self) -> None:
        """Take the session to the newest undamaged checkpoint, or to the policy it starts from."""
        checkpoint, damaged = self._store.newest_good()
        if checkpoint is not None:
            amended = self._amended_since(checkpoint)
            extra = self.session.load(checkpoint.path)
            self._history, self._offsets = EvaluationHistory(**extra["history"]), extra["offsets"]
            self._early_stop = "" if amended else extra["early_stop"]
        else:
            if damaged:
                _log.warning("every checkpoint of run %s is damaged; it starts again at step 0", self.run_dir.id)
            if self.spec.init_from is not None:
                start_from_policy(self.session, self.spec.init_from, self.run_dir.home)
        restore_best(self.run_dir, checkpoint)
        _log.info(
            "run %s at step %d on %s; %d environments (%s), restored by %s",
            self.run_dir.id,
            self.session.step,
            self.session.model.device,
            self.spec.env.n_envs,
            self.spec.env.backend,
            self.spec.env.state,
        )

    def _amended_since(self, checkpoint: Checkpoint) -> bool:
        """Whether the spec was amended after a checkpoint was written; an error if it differs in any other way."""
        digest = checkpoint.manifest.spec_digest
        if digest == self.spec.training_digest():
            return False
        if digest in {amendment.old_digest for amendment in self.run_dir.read().amendments}:
            return True
        raise CheckpointError(
            f"Checkpoint {checkpoint.path} was written for another spec than {self.run_dir.spec_path}. "
            "Change a run with `rlplatform resume RUN --set …`, which records the amendment, not by editing its spec."
        )

    def _sinks(self) -> Iterator[Sink]:
        tracking = self.spec.tracking
        yield JsonlSink(self._records)
        if tracking.tensorboard:
            yield TensorBoardSink(self.run_dir.tb_path, purge_step=self._step + 1)
        if tracking.wandb is not None:
            config = self.spec.model_dump(mode="json")
            yield WandbSink(tracking.wandb, self.run_dir.path, self.run_dir.id.replace("/", "-"), config)

    def _newest_checkpoint(self) -> Checkpoint | None:
        return max(self._store.all(), key=lambda checkpoint: checkpoint.manifest.step, default=None)

    def checkpoint(self, kind: Kind) -> Checkpoint:
        """Return a checkpoint of this boundary; it is written unless there is one."""
        session, newest = self.session, self._newest_checkpoint()
        if newest is not None and newest.manifest.step == session.step and newest.manifest.kind == kind:
            return newest
        if session.rebuilds_envs:
            session.rebuild_envs()
        offsets = (self._records.sync(), self._evaluations.sync())
        extra = {"history": asdict(self._history), "offsets": offsets, "early_stop": self._early_stop}

        def fill(folder: Path, donor: Checkpoint | None) -> Mapping[str, FileRecord]:
            save_best(self.run_dir, folder)
            return session.save(folder, donor=donor.path if donor else None, extra=extra)

        written = self._store.write(
            number=0 if newest is None else newest.manifest.number + 1,
            step=session.step,
            kind=kind,
            spec_digest=self.spec.training_digest(),
            metrics=dict(session.last_metrics),
            fill=fill,
        )
        self._push()
        return written

    # --- evaluation --------------------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        """Evaluate the current policy, keep it if it is the best so far, and decide whether to stop."""
        result = self._measure(_EVALUATION, self.spec.evaluation.n_episodes)
        self.evaluations.append((self.session.step, result))
        self._metrics.write(self.session.step, result.metrics())
        decision = after_evaluation(self.spec.early_stop, self._history, result.return_mean)
        self._history, self._early_stop = decision.history, decision.reason
        if decision.is_best:
            write_best(self.run_dir, self.session.model, self.session.step, result)

    def _measure(self, purpose: str, n_episodes: int) -> EvalResult:
        spec, model = self.spec, self.session.model
        threshold = spec.evaluation.success_threshold
        if threshold is None:
            with preserved_rng():  # for an environment that draws when it is made
                threshold = reward_threshold(spec.env)
        vec_normalize = model.get_vec_normalize_env()
        self._last_evaluation = evaluate(
            Policy(model, Normalizer.of(vec_normalize) if vec_normalize is not None else None),
            spec.env,
            n_episodes=n_episodes,
            seed=derive_seed(spec.seed, purpose),
            deterministic=spec.evaluation.deterministic,
            success_threshold=threshold,
        )
        self._evaluations.append({names.STEP: self.session.step, "purpose": purpose, **asdict(self._last_evaluation)})
        return self._last_evaluation

    # --- requests and progress ---------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        """Look for a request and report progress, at most every half second."""
        now = time.monotonic()
        if now - self._pulse_at < PULSE_S:
            return
        self._pulse_at = now
        self._request = self._request or self.run_dir.pending_request()
        self._listener.on_progress(self.progress)
        if now - self._record_at >= RECORD_S:
            self._record_at = now
            self.run_dir.update(progress=self._run_progress())

    def _run_progress(self) -> RunProgress:
        """Return the progress in run.json's words."""
        now = self.progress
        return RunProgress(
            step=now.step,
            total=now.total_timesteps,
            episode_return=now.rollout_return,
            fps=now.fps,
            updated_at=datetime.now(UTC),
        )


def _evaluations(path: Path) -> Iterator[tuple[int, EvalResult]]:
    """Yield step and result of the evaluations during training that a run's folder holds."""
    for record in read_jsonl(path):
        step, purpose = record.pop(names.STEP), record.pop("purpose")
        if purpose == _EVALUATION:
            fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
            yield step, EvalResult(**fields)
