"""The reproducibility check: one spec, trained twice and once killed and resumed, each in a process of its own.

All three must end with the same bytes of weights and the same metrics. The runs share nothing but the machine: each has
a home of its own, and the kill is SIGKILL, which no process can prepare for.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlplatform import names
from rlplatform.artifacts.atomic import write_text
from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.run_dir import RunDir, list_runs
from rlplatform.errors import TrainingFailed
from rlplatform.specs.load import dump_spec
from rlplatform.specs.run import RunSpec

CHECKPOINTS = 5
"""Scheduled checkpoints of a checked run, at least; a spec with more keeps its own schedule."""
POLL_S = 0.02
OUTPUT_FILE = "output.txt"


@dataclass(frozen=True)
class CheckedRun:
    """One of the runs that are compared."""

    what: str
    run: RunDir
    weights_sha256: str
    metrics: int
    """Records in metrics.jsonl."""
    difference: str
    """How it differs from the first run; empty when it does not."""


@dataclass(frozen=True)
class Verification:
    """What the check found."""

    runs: tuple[CheckedRun, ...]
    kills: tuple[int, ...]
    """Step of the newest checkpoint at each kill."""

    @property
    def reproducible(self) -> bool:
        """Whether every run equals the first, and at least one kill came in time."""
        return bool(self.kills) and not any(run.difference for run in self.runs)


def verify_spec(spec: RunSpec, folder: Path, *, kills: int = 1, say: Callable[[str], None]) -> Verification:
    """Train a spec three times and compare what comes out.

    Args:
        spec: What to train; it is checkpointed at least five times, in all three runs alike.
        folder: An existing folder for the three homes.
        kills: How often the third run is killed.
        say: Takes a line about each stage.

    Raises:
        TrainingFailed: A run failed; the message holds its last line.
    """
    from rlplatform.train.compare import comparable_records, compare_runs, newest_policy, weights_sha256

    config = folder / names.SPEC_FILE
    write_text(config, dump_spec(_with_checkpoints(spec)))
    say("training the spec twice without interruption, and a third time to be killed")
    whole = [_Process(folder / home, ["train", str(config), "--local"]) for home in ("first", "second")]
    killed_at = _train_with_kills(folder / "killed", config, kills, say)
    for process in whole:
        process.finish()
    runs = [_only_run(folder / home) for home in ("first", "second", "killed")]
    titles = ("uninterrupted", "uninterrupted again", f"killed {len(killed_at)} times and resumed")
    checked = tuple(
        CheckedRun(
            what,
            run,
            weights_sha256(newest_policy(run)),
            sum(1 for _ in comparable_records(run)),
            compare_runs(runs[0], run).difference,
        )
        for what, run in zip(titles, runs, strict=True)
    )
    return Verification(checked, tuple(killed_at))


class _Process:
    """A command of ours in a process of its own, with a home of its own."""

    def __init__(self, home: Path, arguments: Sequence[str]) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self._output = open(home / OUTPUT_FILE, "ab")  # noqa: SIM115 - closed by `finish` and `kill`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rlplatform", *arguments],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, names.HOME_ENV_VAR: str(home)},
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()

    def finish(self) -> None:
        code = self._process.wait()
        self._output.close()
        if code != 0:
            lines = (self.home / OUTPUT_FILE).read_text(errors="replace").strip().splitlines()
            raise TrainingFailed(
                f"A run of the check ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}. "
                f"All it said is in {self.home / OUTPUT_FILE}; try `rlplatform train … --local`."
            )


def _train_with_kills(home: Path, config: Path, kills: int, say: Callable[[str], None]) -> list[int]:
    """Train, kill, resume; return the step of the newest checkpoint at each kill."""
    process, began_at = _Process(home, ["train", str(config), "--local"]), time.monotonic()
    killed_at: list[int] = []
    while len(killed_at) < kills:
        before = killed_at[-1] if killed_at else 0
        while not process.ended and _newest_step(home) <= before:
            time.sleep(POLL_S)
        # Anywhere between this checkpoint and the next, so that there is work to lose.
        time.sleep(random.uniform(0, 0.05 * (time.monotonic() - began_at)))
        if process.ended:
            break
        process.kill()
        killed_at.append(_newest_step(home))
        say(f"killed the third run after its checkpoint at step {killed_at[-1]:,}; resuming it")
        process, began_at = _Process(home, ["resume", _only_run(home).id, "--local"]), time.monotonic()
    process.finish()
    return killed_at


def _with_checkpoints(spec: RunSpec) -> RunSpec:
    most = max(1, spec.budget.total_timesteps // CHECKPOINTS)
    every = min(spec.checkpoint.every_steps or most, most)
    return spec.model_copy(update={"checkpoint": spec.checkpoint.model_copy(update={"every_steps": every})})


def _only_run(home: Path) -> RunDir:
    return RunDir.open(home, list_runs(home)[0].id)


def _newest_step(home: Path) -> int:
    runs = list_runs(home) if (home / names.RUNS_DIR).is_dir() else []
    if not runs:
        return 0
    checkpoints = CheckpointStore(RunDir.open(home, runs[0].id).checkpoints_path, keep_last=1).all()
    return checkpoints[-1].manifest.step if checkpoints else 0
