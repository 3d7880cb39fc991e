"""Measures how long the published policy's runtime takes to act, and writes docs/results/runtime_latency.md.

    python -m benchmarks.runtime_latency --rounds 15

Beside it stands SB3's `predict`, in the same process and thread. CPU time of both is taken in turn, round by round, so
that another load on the machine falls on both; the median of the rounds is reported. Networks are SB3's defaults,
untrained: their speed does not depend on their weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # Before torch is imported.

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform.algos.build import algorithm_class
from rlplatform.policy.export import export_bundle
from rlplatform.policy.runtime import PolicyRuntime

PAGE = ROOT / "docs" / "results" / "runtime_latency.md"
CASES = (("ppo", "CartPole-v1"), ("dqn", "CartPole-v1"), ("sac", "Pendulum-v1"), ("ppo", "LunarLander-v3"))
BATCHES = (1, 64, 1024)
ROUND_S = 0.1


class Row(NamedTuple):
    """Medians over rounds, in microseconds for one call."""

    case: str
    mode: str
    batch: int
    ours_us: float
    sb3_us: float


def main() -> None:
    """Measure every case and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for algorithm, env in CASES for row in measure(algorithm, env, arguments.rounds)]
    lines = [
        f"| {row.case} | {row.mode} | {row.batch} | {row.ours_us:.1f} | {row.sb3_us:.1f} | "
        f"{row.sb3_us / row.ours_us:.1f}x |"
        for row in rows
    ]
    write_page(
        PAGE,
        "Time to act",
        f"python -m benchmarks.runtime_latency --rounds {arguments.rounds}",
        f"""
One call of `PolicyRuntime.predict` beside one of SB3's `model.predict`: the same policy, process and thread, CPU time,
timed in turn; medians of {arguments.rounds} rounds, microseconds for one call.

| policy | mode | batch | ours µs | SB3 µs | ratio |
|---|---|---:|---:|---:|---:|
{chr(10).join(lines)}

{describe_machine()} Load average when it ended: {os.getloadavg()[0]:.1f}.
""",
    )


def measure(algorithm: str, env: str, rounds: int) -> list[Row]:
    """Time both sides on one policy, for each batch size and mode."""
    options: dict[str, Any] = {"buffer_size": 64} if algorithm in ("dqn", "sac") else {}
    model = algorithm_class(algorithm)("MlpPolicy", env, device="cpu", seed=0, **options)
    with tempfile.TemporaryDirectory() as folder:
        runtime = PolicyRuntime(export_bundle(model, None, Path(folder, "bundle")))
    return [
        Row(
            f"{algorithm.upper()}, {env}",
            "greedy" if deterministic else "sampled",
            batch,
            *compare(model, runtime, batch, deterministic, rounds),
        )
        for deterministic in (True, False)
        if deterministic or algorithm != "dqn"
        for batch in (BATCHES if deterministic else (1,))
    ]


def compare(
    model: BaseAlgorithm, runtime: PolicyRuntime, batch: int, deterministic: bool, rounds: int
) -> tuple[float, float]:
    """Return microseconds for one call of ours and one of SB3's."""
    space = model.observation_space
    assert isinstance(space, spaces.Box)
    rng = np.random.default_rng(0)
    shape = space.shape if batch == 1 else (batch, *space.shape)
    obs = rng.standard_normal(shape).astype(np.float32)

    def ours() -> object:
        return runtime.predict(obs, deterministic=deterministic, rng=rng)

    def theirs() -> object:
        return model.predict(obs, deterministic=deterministic)

    times = [(_seconds_each(ours), _seconds_each(theirs)) for _ in range(rounds)]
    return statistics.median(1e6 * own for own, _ in times), statistics.median(1e6 * other for _, other in times)


def _seconds_each(call: Callable[[], object]) -> float:
    call()
    # CPU time: with one thread it is the latency on an idle core, and what else runs here does not count.
    start, n = time.process_time(), 0
    while (elapsed := time.process_time() - start) < ROUND_S:
        for _ in range(20):
            call()
        n += 20
    return elapsed / n


if __name__ == "__main__":
    main()
