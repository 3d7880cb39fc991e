"""Kills runs with SIGKILL at drawn moments, resumes them, compares bytes, and writes docs/results/resume.md.

    python -m benchmarks.resume_kills                     four kills for each case and moment: 20 for each moment
    python -m benchmarks.resume_kills --kills 1 --cases dqn

A case is trained once without interruption, which also counts how often each kind of moment comes. Then, for each
kill, a process trains it anew and sends SIGKILL to itself at a drawn one of those moments, and a second process
resumes it. Every tensor in the last checkpoint (networks, target networks, optimizers), every line of metrics.jsonl
without its `time/` keys and every line of evaluations.jsonl must be what the uninterrupted run wrote.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.page import describe_machine, write_page
from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.jsonl import read_jsonl
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.specs.run import RunSpec
from rlplatform.train.compare import comparable_records, newest_policy, weights_sha256
from rlplatform.train.policy_folder import Policy
from rlplatform.train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "resume.md"
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


def _case(algorithm: Mapping[str, Any], env: Mapping[str, Any], steps: int) -> RunSpec:
    return RunSpec.model_validate({
        "algorithm": algorithm,
        "env": env,
        "budget": {"total_timesteps": steps},
        "seed": 11,
        "evaluation": {"every_steps": steps // 6, "n_episodes": 3, "final_episodes": 3},
        "checkpoint": {"every_steps": steps // 4},
        "tracking": {"log_every_steps": steps // 12},
    })


CASES = {
    "ppo": _case(
        {"name": "ppo", "n_steps": 64, "batch_size": 64, "n_epochs": 2},
        {
            "id": "LunarLander-v3", "kwargs": {"enable_wind": True}, "n_envs": 4,
            "normalize": {"obs": True, "reward": True},
        },
        3_072,
    ),
    "a2c": _case({"name": "a2c"}, {"id": "Acrobot-v1", "n_envs": 4}, 2_400),
    "dqn": _case(
        {"name": "dqn", "learning_starts": 200, "buffer_size": 1_000, "target_update_interval": 100},
        {"id": "CartPole-v1"}, 2_400,
    ),
    "sac": _case(
        {
            "name": "sac", "learning_starts": 100, "buffer_size": 600, "use_sde": True,
            "policy_kwargs": {"net_arch": [32, 32]},
        },
        {"id": "Pendulum-v1"}, 1_200,
    ),
    "recurrent_ppo": _case(
        {
            "name": "recurrent_ppo", "n_steps": 32, "batch_size": 64, "n_epochs": 1,
            "policy_kwargs": {"lstm_hidden_size": 16},
        },
        {"id": "CartPole-v1", "n_envs": 4}, 1_536,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a run left: a hash of every weight, one of every metric, and how often each moment came."""

    weights: str
    metrics: str
    moments: Mapping[str, int]


@dataclass(frozen=True)
class Kill:
    """One kill and what became of it."""

    case: str
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
        VecEnv.step = self._before(VecEnv.step, lambda: "between" if self._written else "first")  # type: ignore[method-assign]
        Policy.act = self._before(Policy.act, lambda: "evaluation")  # type: ignore[method-assign]
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

        CheckpointStore.write = writing  # type: ignore[method-assign,assignment]

    def _before(self, function: Callable[..., Any], kind: Callable[[], str]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._tick(kind())
            return function(*args, **kwargs)

        return counted

    def _tick(self, kind: str) -> None:
        self.counts[kind] += 1
        if self._kill_at == (kind, self.counts[kind]):
            os.kill(os.getpid(), signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, resume, compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--kills", type=int, default=4, help="for each case and moment")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(argv)
    _CONTEXT.set_forkserver_preload(["rlplatform.train.trainer"])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        home = Path(folder)
        references = dict(zip(arguments.cases, pool.map(lambda case: train(case, home), arguments.cases), strict=True))
        plan = [
            (case, moment, arguments.seed * 1_000_000 + number, references[case], home)
            for case in arguments.cases
            for moment in MOMENTS
            for number in range(arguments.kills)
        ]
        kills = list(pool.map(lambda planned: kill_and_resume(*planned), plan))
    _report(arguments, references, kills)
    return 0 if all(kill.exact for kill in kills) else 1


def train(case: str, home: Path) -> Outcome:
    """Train a case without interruption, in a process of its own."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(target=_train_and_count, args=(case, home, sender))
    child.start()
    sender.close()
    outcome: Outcome = receiver.recv()
    child.join()
    return outcome


def kill_and_resume(case: str, moment: str, seed: int, reference: Outcome, home: Path) -> Kill:
    """Train a case until a drawn moment kills it, resume it, and compare it with the uninterrupted run."""
    of = reference.moments[moment]
    tick = random.Random(f"{seed}/{case}/{moment}").randint(1, of)
    run_dir = Trainer.create(CASES[case], home).run_dir
    victim = _CONTEXT.Process(target=_train_until_killed, args=(run_dir.path, moment, tick))
    victim.start()
    victim.join()
    if victim.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"{case} was to die {MOMENTS[moment]} (tick {tick}), but ended with {victim.exitcode}")
    checkpoint, _ = CheckpointStore(run_dir.checkpoints_path, 1).newest_good()
    survivor = _CONTEXT.Process(target=_resume, args=(run_dir.path,))
    survivor.start()
    survivor.join()
    exact = survivor.exitcode == 0 and fingerprint(run_dir) == (reference.weights, reference.metrics)
    kill = Kill(case, moment, seed, tick, of, checkpoint.manifest.step if checkpoint else 0, exact)
    print(json.dumps(asdict(kill)), flush=True)
    return kill


def fingerprint(run_dir: RunDir) -> tuple[str, str]:
    """Return the sha256 of every weight of the last checkpoint, and of every metric but wall-clock readings."""
    records = [*comparable_records(run_dir), *read_jsonl(run_dir.evaluations_path)]
    metrics = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
    return weights_sha256(newest_policy(run_dir)), metrics


def _train_and_count(case: str, home: Path, sender: Any) -> None:
    trainer = Trainer.create(CASES[case], home)
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


def _report(arguments: argparse.Namespace, references: Mapping[str, Outcome], kills: Sequence[Kill]) -> None:
    def cell(case: str, moment: str) -> str:
        chosen = [kill for kill in kills if (kill.case, kill.moment) == (case, moment)]
        return f"{sum(kill.exact for kill in chosen)} of {len(chosen)}"

    header = " | ".join(MOMENTS.values())
    rows = [
        f"| {case}, `{CASES[case].env.id}` | " + " | ".join(cell(case, moment) for moment in MOMENTS) + " |"
        for case in references
    ]
    died = Counter(kill.moment for kill in kills)
    exact = Counter(kill.moment for kill in kills if kill.exact)
    totals = [f"{exact[moment]} of {died[moment]}" for moment in MOMENTS]
    draws = [
        f"| {case} | {MOMENTS[moment]} | {references[case].moments[moment]:,} | "
        + ", ".join(
            f"{kill.tick}→{kill.resumed_from}" for kill in kills if (kill.case, kill.moment) == (case, moment)
        ) + " |"
        for case in references for moment in MOMENTS
    ]
    command = f"python -m benchmarks.resume_kills --kills {arguments.kills} --seed {arguments.seed}"
    write_page(PAGE, "Exact resume: killed at any moment, the same bytes in the end", command, f"""
Each run was killed once with SIGKILL, at a moment drawn from all moments of its kind, and resumed by a new process.
It counts as exact when every tensor of its last checkpoint (networks, target networks, optimizers), every line of
metrics.jsonl without its `time/` keys and every line of evaluations.jsonl equal those of a run that nobody
interrupted.

| Run | {header} |
|---|{"---:|" * len(MOMENTS)}
{chr(10).join(rows)}
| **all** | {" | ".join(totals)} |

## Every draw

`tick→step`: killed at which moment of its kind, and the step of the checkpoint it went on from (0: none was there
yet). While a checkpoint is written, a moment is a file that is opened, linked, renamed or removed; during evaluation
and between checkpoints it is a step; inside an update it is a step of the optimizer. The draw's seed is the number of
the kill, from 0 ({arguments.seed} million more for each unit of `--seed`).

| Run | Moment | Moments | Kills |
|---|---|---:|---|
{chr(10).join(draws)}

{describe_machine()}
""")


if __name__ == "__main__":
    raise SystemExit(main())
