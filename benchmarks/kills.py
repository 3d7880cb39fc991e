"""Killing a run with SIGKILL at a drawn moment, resuming it, and comparing it with one that nobody interrupted.

The moments are found without any hook in the platform: in the environments' steps, the evaluated policy's actions, the
optimizers' steps, and, while a checkpoint is written, Python's audit events of file operations.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv
from torch.optim.optimizer import register_optimizer_step_post_hook

from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.jsonl import read_jsonl
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.specs.run import RunSpec
from rlplatform.train.compare import comparable_records, newest_policy, weights_sha256
from rlplatform.train.policy_folder import Policy
from rlplatform.train.trainer import Trainer

MOMENTS = {
    "first": "before the first checkpoint",
    "between": "between two checkpoints",
    "write": "while a checkpoint is written",
    "evaluation": "during evaluation",
    "update": "inside an update",
}
FILE_EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"})
"""Python's audit events between which a kill finds a checkpoint half written."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["rlplatform.train.trainer"])


@dataclass(frozen=True)
class Outcome:
    """What a run left: a hash of every weight, one of every metric, and how often each moment came."""

    weights: str
    metrics: str
    moments: Mapping[str, int]


@dataclass(frozen=True)
class Kill:
    """One kill and what became of it."""

    title: str
    """The run's name."""
    moment: str
    seed: int
    """Seed of the draw."""
    tick: int
    """Which of the moments of that kind was drawn, counted from 1."""
    of: int
    resumed_from: int
    """Step of the checkpoint that the second process found; 0 where there was none."""
    exact: bool


class Moments:
    """Counts the moments of a run as they come, and kills the process at one of them."""

    def __init__(self, kill_at: tuple[str, int] | None = None) -> None:
        """Count, and kill at the given number of the given kind of moment."""
        self.counts: Counter[str] = Counter()
        self._kill_at = kill_at
        self._written = 0
        self._writing = False

    def install(self) -> None:
        """Hook into the environments, the optimizers, the evaluated policy and file operations of this process."""
        register_optimizer_step_post_hook(lambda *_: self._tick("update"))
        sys.addaudithook(lambda event, _: self._tick("write") if self._writing and event in FILE_EVENTS else None)
        write = CheckpointStore.write

        def writing(store: CheckpointStore, **arguments: Any) -> Any:
            self._writing = True
            try:
                return write(store, **arguments)
            finally:
                self._writing = False
                self._written += 1

        hooks: dict[type, tuple[str, Callable[..., Any]]] = {
            VecEnv: ("step", self._before(VecEnv.step, lambda: "between" if self._written else "first")),
            Policy: ("act", self._before(Policy.act, lambda: "evaluation")),
            CheckpointStore: ("write", writing),
        }
        for owner, (name, hook) in hooks.items():
            setattr(owner, name, hook)

    def _before(self, function: Callable[..., Any], kind: Callable[[], str]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._tick(kind())
            return function(*args, **kwargs)

        return counted

    def _tick(self, kind: str) -> None:
        self.counts[kind] += 1
        if self._kill_at == (kind, self.counts[kind]):
            os.kill(os.getpid(), signal.SIGKILL)


def train(spec: RunSpec, home: Path) -> Outcome:
    """Train a spec without interruption, in a process of its own."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(target=_train_and_count, args=(spec, home, sender))
    child.start()
    sender.close()
    outcome: Outcome = receiver.recv()
    child.join()
    return outcome


def kill_and_resume(spec: RunSpec, moment: str, seed: int, reference: Outcome, home: Path) -> Kill:
    """Train a spec until a drawn moment kills it, resume it, and compare it with the uninterrupted run."""
    of = reference.moments[moment]
    tick = random.Random(f"{seed}/{spec.title}/{moment}").randint(1, of)
    run_dir = Trainer.create(spec, home).run_dir
    victim = _CONTEXT.Process(target=_train_until_killed, args=(run_dir.path, moment, tick))
    victim.start()
    victim.join()
    if victim.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"{spec.title} was to die {MOMENTS[moment]} (tick {tick}), but ended with {victim.exitcode}")
    checkpoint, _ = CheckpointStore(run_dir.checkpoints_path, 1).newest_good()
    survivor = _CONTEXT.Process(target=_resume, args=(run_dir.path,))
    survivor.start()
    survivor.join()
    exact = survivor.exitcode == 0 and fingerprint(run_dir) == (reference.weights, reference.metrics)
    return Kill(spec.title, moment, seed, tick, of, checkpoint.manifest.step if checkpoint else 0, exact)


def fingerprint(run_dir: RunDir) -> tuple[str, str]:
    """Return the sha256 of every weight of the last checkpoint, and of every metric but wall-clock readings."""
    records = [*comparable_records(run_dir), *read_jsonl(run_dir.evaluations_path)]
    metrics = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
    return weights_sha256(newest_policy(run_dir)), metrics


def _train_and_count(spec: RunSpec, home: Path, sender: Any) -> None:
    trainer = Trainer.create(spec, home)
    moments = Moments()
    moments.install()
    trainer.fit()
    counts = dict(moments.counts)
    sender.send(Outcome(*fingerprint(trainer.run_dir), counts))


def _train_until_killed(path: Path, moment: str, tick: int) -> None:
    Moments((moment, tick)).install()
    Trainer.open(RunDir(path)).fit()


def _resume(path: Path) -> None:
    Trainer.open(RunDir(path)).fit()
