"""Measures what the platform costs over bare Stable-Baselines3 and writes docs/results/overhead.md.

    python -m benchmarks.overhead                        all cases, twenty pairs each
    python -m benchmarks.overhead --rounds 4 cartpole_dqn

Both sides train the same settings, with the same environments in the same process, in rounds that alternate: bare,
platform, bare, platform… after a warm-up of each. The clock runs from the first rollout to the last update. On both
sides TensorBoard is on and evaluation and checkpoints are off. The platform also writes metrics.jsonl and run.json,
records the actions that exact resume needs, and looks for requests; that is what is measured.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform.algos.build import build_model
from rlplatform.specs.load import load_run_spec
from rlplatform.specs.run import CheckpointSpec, EvaluationSpec, RunSpec
from rlplatform.train.student_t import student_t_975
from rlplatform.train.trainer import Trainer

PAGE = ROOT / "docs" / "results" / "overhead.md"
CASES = {"cartpole_ppo": 20_480, "lunar_lander_ppo": 16_384, "cartpole_dqn": 10_240}
"""Config and environment steps of each round."""


@dataclass(frozen=True)
class Timing:
    """What one training took, from its first rollout to its last update."""

    steps: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Ratio:
    """Speed of the platform over speed of bare SB3: geometric mean over pairs, with a 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the ratio with its interval, to a tenth of a percent."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Stopwatch:
    """Runs from the first to the last call of what it wraps."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._ended = (0.0, 0.0)

    def wrap(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return `step`, timed."""

        def timed() -> None:
            self._began = self._began or _clocks()
            step()
            self._ended = _clocks()

        return timed

    def read(self, steps: int) -> Timing:
        """Return the time between the first call's begin and the last call's end."""
        assert self._began is not None
        return Timing(steps, self._ended[0] - self._began[0], self._ended[1] - self._began[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the cases and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [measure(case, arguments.rounds) for case in arguments.cases]
    write_page(
        PAGE,
        "Overhead: the platform against bare Stable-Baselines3",
        f"python -m benchmarks.overhead --rounds {arguments.rounds}",
        f"""
The ratio of environment steps per second, platform over bare SB3: 1 is no overhead, the promise is at least 0.97.
Same settings, same single process, one torch thread, environments stepped one by one in it (`sync` here,
`DummyVecEnv` there). {arguments.rounds} pairs alternate after a warm-up of each side; the interval is Student's t
over the logarithms of the pairs' ratios. The clock runs from the first rollout to the last update. TensorBoard is on
in both; evaluation and checkpoints are off in both. The platform also writes metrics.jsonl and run.json, records what
exact resume needs, and looks for requests. CPU seconds are shown besides wall time because they do not count what
other programs take from the machine.

| Config | Steps a round | SB3, steps/s | Platform, steps/s | Ratio, wall time | Ratio, CPU time |
|---|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

{describe_machine()}
""",
    )
    return 0


def measure(case: str, rounds: int) -> str:
    """Return the table row of one case."""
    spec = _bare_spec(case, CASES[case])
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        train_bare(spec, home)
        train_on_platform(spec, home)
        pairs = [(train_bare(spec, home), train_on_platform(spec, home)) for _ in range(rounds)]
    wall = paired_ratio([(bare.wall_s, ours.wall_s) for bare, ours in pairs])
    cpu = paired_ratio([(bare.cpu_s, ours.cpu_s) for bare, ours in pairs])
    bare_fps = np.median([bare.steps / bare.wall_s for bare, _ in pairs])
    our_fps = np.median([ours.steps / ours.wall_s for _, ours in pairs])
    row = f"| `{case}` | {pairs[0][0].steps:,} | {bare_fps:,.0f} | {our_fps:,.0f} | {wall} | {cpu} |"
    print(row, flush=True)
    return row


def _bare_spec(case: str, steps: int) -> RunSpec:
    spec = load_run_spec(ROOT / "configs" / "train" / f"{case}.yaml").spec
    return spec.model_copy(
        update={
            "budget": spec.budget.model_copy(update={"total_timesteps": steps}),
            "env": spec.env.model_copy(update={"backend": "sync"}),
            "evaluation": EvaluationSpec(every_steps=None, final_episodes=0),
            "checkpoint": CheckpointSpec(every_steps=None),
        }
    )


def train_bare(spec: RunSpec, folder: Path) -> Timing:
    """Train with SB3's own environments and `learn`."""
    # make_vec_env would ask for rgb_array, and LunarLander then simulates the engines' particles too: a third slower.
    env = make_vec_env(spec.env.id, n_envs=spec.env.n_envs, seed=spec.seed, env_kwargs={"render_mode": None})
    model = build_model(spec.algorithm, env, seed=spec.seed, device="cpu")
    model.tensorboard_log = str(folder / "sb3")
    wall, cpu = _clocks()
    model.learn(spec.budget.total_timesteps)
    wall_end, cpu_end = _clocks()
    env.close()
    return Timing(model.num_timesteps, wall_end - wall, cpu_end - cpu)


def train_on_platform(spec: RunSpec, home: Path) -> Timing:
    """Train with `Trainer`."""
    trainer, watch = Trainer.create(spec, home), Stopwatch()
    with patch.object(trainer, "step", watch.wrap(trainer.step)):
        return watch.read(trainer.fit().step)


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Return how fast the second of each pair is relative to the first.

    Args:
        pairs: Durations for the same work, in the same unit; at least two pairs.
    """
    logs = np.log([first / second for first, second in pairs])
    mean = float(np.mean(logs))
    half = student_t_975(len(logs) - 1) * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    raise SystemExit(main())
