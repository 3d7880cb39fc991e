"""One trial: a run for each seed, side by side, from one evaluation to the next. It knows nothing of Ray.

Two runs in one process share the global random generators, so each has its own turn of them. Runs write their own
checkpoints into their own folders; a trial that is taken up again, by whichever process, goes on from those, and tells
its latest report once more. What a scheduler has seen already it passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlplatform.artifacts.atomic import recover_dirs
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.report.statistics import trimmed_mean
from rlplatform.specs.run import EnvSpec, RunSpec
from rlplatform.specs.search import ObjectiveSpec, SearchSpec, apply_point
from rlplatform.train.resolve import resolve
from rlplatform.train.seeding import RngState, capture_rng, derive_seed, restore_rng, seed_everything
from rlplatform.train.trainer import Trainer
from rlplatform.tune.trial_folder import TrialNote, adopt_seed, read_note, save_seed, write_note


@dataclass(frozen=True)
class TrialReport:
    """What a trial tells at an evaluation."""

    generation: int
    """How often it took over another trial's networks."""
    iteration: int
    """Counts the reports of a generation, from 1."""
    step: int
    """Environment steps of each seed."""
    value: float
    """The objective's metric at the latest evaluation, aggregated over the seeds."""
    best_value: float
    trained_steps: int
    """Environment steps spent since the last report, over all seeds."""
    done: bool
    reason: str = ""
    """Why it is done."""


class TrialRuns:
    """The runs of one trial, while a process trains them."""

    def __init__(self, search: SearchDir, spec: SearchSpec, trial_id: str, point: Mapping[str, Any]) -> None:
        """Name the trial; nothing is read or written before `start`."""
        self.search, self.spec, self.trial_id, self.point = search, spec, trial_id, dict(point)
        self.path = search.trial_path(trial_id)
        self._stack = ExitStack()
        self._runs: list[_Run] = []
        self._iteration = 0
        self._told = False

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the runs are open."""
        return bool(self._runs)

    def start(self) -> None:
        """Open the runs: make them, or take them up from their newest checkpoints.

        Raises:
            RlPlatformError: A run cannot be made or taken up.
        """
        recover_dirs(self.path, "seed_*")
        try:
            for seed in self.spec.seeds:
                trainer = Trainer.open(self._run_dir(seed))
                alone = len(self.spec.seeds) == 1
                self._runs.append(self._stack.enter_context(_Run(trainer, self.spec, alone).attempt()))
        except BaseException as error:
            self.fail(error)
            raise
        self._iteration, self._told = min(len(run.trainer.evaluations) for run in self._runs), False

    def close(self, state: Literal["paused", "stopped"], reason: str) -> None:
        """Leave runs that are not over, with checkpoints to go on from."""
        for run in self._runs:
            run.leave(state, reason)
        self._forget()

    def fail(self, error: BaseException) -> None:
        """Close everything because of an error; the folder of the run that raised it says why it failed."""
        try:
            self._stack.__exit__(type(error), error, error.__traceback__)
        except BaseException as same:  # the runs raise it again, in the words of theirs
            if not isinstance(same, Exception):
                raise
        finally:
            self._runs = []

    def _forget(self) -> None:
        self._runs, stack = [], self._stack.pop_all()
        stack.close()

    # --- training ----------------------------------------------------------------------------------------------------

    def advance(self) -> TrialReport:
        """Train every run up to its next evaluation, and report; after taking up, first report the latest again.

        A trial that is done with this closes its runs.
        """
        before = sum(run.step for run in self._runs)
        if self._told or not self._iteration:
            self._iteration += 1
        self._told = True
        for run in self._runs:
            run.train_until(self._iteration)
        done = all(run.over for run in self._runs)
        values = self._values()[: self._iteration]
        better = max if self.spec.objective.mode == "max" else min
        report = TrialReport(
            generation=read_note(self.path).generation,
            iteration=self._iteration,
            step=max(run.step_at(self._iteration) for run in self._runs),
            value=values[-1],
            best_value=better(values),
            trained_steps=sum(run.step for run in self._runs) - before,
            done=done,
            reason=self._runs[0].reason if done else "",
        )
        if done:
            self._forget()
        return report

    def _values(self) -> list[float]:
        metrics = [run.values(self.spec.objective) for run in self._runs]
        length = max(len(values) for values in metrics)
        return [aggregate([values[min(i, len(values) - 1)] for values in metrics]) for i in range(length)]

    # --- moving ------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write everything needed to go on, here or as another trial, into an existing folder."""
        for run in self._runs:
            with run.turn():
                save_seed(run.trainer, folder / run.trainer.run_dir.path.name)
        note = read_note(self.path)
        step = max(run.step for run in self._runs)
        write_note(folder, TrialNote(trial_id=self.trial_id, generation=note.generation, step=step))

    def adopt(self, folder: Path) -> None:
        """Take up what `save` wrote: nothing to do if the runs have it already, else become what was saved.

        Raises:
            SpecError: The other trial differs in something that cannot change in a live model; it is named.
        """
        saved, own = read_note(folder), read_note(self.path)
        origin = saved.origin(self.point)
        mine = saved.trial_id == self.trial_id and saved.generation == own.generation
        if (mine and (self.path / f"seed_{self.spec.seeds[0]}").exists()) or origin == own.adopted:
            return
        if self.started:
            self.close("paused", f"takes over trial {saved.trial_id}")
        for seed in self.spec.seeds:
            adopt_seed(self._run_dir(seed), folder / f"seed_{seed}", self._run_spec(seed), saved)
        write_note(self.path, TrialNote(self.trial_id, generation=own.generation + 1, step=saved.step, adopted=origin))

    # --- folders -----------------------------------------------------------------------------------------------------

    def _run_spec(self, seed: int) -> RunSpec:
        spec = apply_point(self.spec.run, self.point, f"trial {self.trial_id}")
        return _resolved(spec.model_copy(update={"seed": seed, "name": None}))

    def _run_dir(self, seed: int) -> RunDir:
        run_dir = RunDir(self.path / f"seed_{seed}")
        if run_dir.run_path.exists():
            return run_dir
        return RunDir.create(self.search.home, self._run_spec(seed), run_dir.path)


class _Run:
    """One seed of a trial, with its own turn of the global generators."""

    def __init__(self, trainer: Trainer, spec: SearchSpec, alone: bool) -> None:
        self.trainer = trainer
        self._max_steps = spec.max_steps
        self._alone = alone
        self._rng: RngState | None = None

    @contextmanager
    def attempt(self) -> Iterator[_Run]:
        with self.trainer.attempt():
            self._part_from_origin()
            self._rng = None if self._alone else capture_rng()
            yield self

    def _part_from_origin(self) -> None:
        """Draw otherwise than a trial that was taken over just now: with the same point, a copy would repeat it."""
        run, takeovers = self.trainer.run_dir, self.trainer.run_dir.read().amendments
        if takeovers and takeovers[-1].step == self.step:
            purpose = f"trial {run.path.parent.name} takes over another"
            seed_everything(derive_seed(self.trainer.spec.seed, purpose, len(takeovers)))

    @property
    def step(self) -> int:
        return self.trainer.session.step

    def step_at(self, iteration: int) -> int:
        """Return the step of an evaluation; where that is past the last one, the present step."""
        made = self.trainer.evaluations
        return made[iteration - 1][0] if iteration <= len(made) else self.step

    @property
    def over(self) -> bool:
        return self.trainer.result is not None

    @property
    def reason(self) -> str:
        return self.trainer.result.reason if self.trainer.result is not None else ""

    def train_until(self, iteration: int) -> None:
        """Train until so many evaluations are made, or the run is over."""
        if self.over:
            return
        with self.turn():
            trainer = self.trainer
            while True:
                if trainer.done:
                    trainer.complete()
                elif self.step >= self._max_steps:
                    trainer.leave("stopped", f"trained the {self._max_steps} steps that the scheduler allows")
                elif trainer.time_is_up:
                    trainer.leave("stopped", "its time limit was reached")
                if self.over or len(trainer.evaluations) >= iteration:
                    return
                trainer.step()

    def leave(self, state: Literal["paused", "stopped"], reason: str) -> None:
        if not self.over:
            with self.turn():
                self.trainer.leave(state, reason)

    def values(self, objective: ObjectiveSpec) -> list[float]:
        """Return the objective's metric at every evaluation; of a run without any, at its final one."""
        results = [result for _, result in self.trainer.evaluations]
        if not results and self.trainer.result is not None and self.trainer.result.final is not None:
            results = [self.trainer.result.final]
        return [result.metrics().get(objective.metric, float("nan")) for result in results] or [float("nan")]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the global generators during the block."""
        if self._rng is not None:
            restore_rng(self._rng)
        try:
            yield
        finally:
            if self._rng is not None:
                self._rng = capture_rng()


def aggregate(values: list[float]) -> float:
    """Return the interquartile mean of one value for each seed; of fewer than four it is their mean."""
    return float(trimmed_mean(np.asarray([values]))[0])


def _resolved(spec: RunSpec) -> RunSpec:
    """Return `resolve(spec)`; the environments of trials that differ in nothing it looks at are tried only once."""
    key = (spec.env.digest(), spec.algorithm.name, spec.seed)
    if key not in _resolved_envs:
        _resolved_envs[key] = resolve(spec).env
    return spec.model_copy(update={"env": _resolved_envs[key]})


_resolved_envs: dict[tuple[str, str, int], EnvSpec] = {}
