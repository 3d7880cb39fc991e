"""Measures what packing trainers onto one GPU brings, and writes docs/results/gpu.md.

    python -m benchmarks.gpu_packing                 on a machine with a GPU: 1, 4, 8 and 16 trainers
    python -m benchmarks.gpu_packing --pretend --packed 1,2 --steps 4096 --page /tmp/gpu.md
                                                     without one: tells Ray that there is a GPU and trains on the CPU

Every trainer is a run like any other, started by `train_on_ray`: PPO on CartPole with a network of two layers of 256.
With `gpus: 1` Ray lets one train at a time; with `gpus: 1/n`, n of them share the GPU, each capped to its share of the
memory. Counted are environment steps of all runs over the time from the first run's start to the last one's end, so
that one after the other pays for each start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform.artifacts.run_record import RunRecord
from rlplatform.cluster.runner import RayOptions, train_on_ray
from rlplatform.cluster.session import ray_session
from rlplatform.errors import RlPlatformError
from rlplatform.specs.run import RunSpec
from rlplatform.train.progress import Progress

PAGE = ROOT / "docs" / "results" / "gpu.md"
TITLE = "Packing trainers onto one GPU"
PACKED = (1, 4, 8, 16)
ALONE = 4
"""Runs of the baseline that train one after the other."""
QUERY = ("nvidia-smi", "--query-gpu=name,memory.used,utilization.gpu", "--format=csv,noheader,nounits", "--id=0")


@dataclass(frozen=True)
class Gpu:
    """What the driver says of the GPU at one moment."""

    name: str
    memory_mib: int
    utilization_percent: int


@dataclass(frozen=True)
class Packing:
    """How a number of runs trained on shares of a GPU."""

    runs: int
    share: float
    steps_per_s: float
    """Environment steps of all runs together per second."""
    memory_mib: int
    """Most memory in use at once; 0 where there is no GPU."""
    utilization_percent: float
    """Mean over the looks, twice a second."""


def spec(seed: int, share: float, steps: int, pretend: bool) -> RunSpec:
    """Return the run that every trainer trains."""
    return RunSpec.model_validate(
        {
            "algorithm": {
                "name": "ppo",
                "n_steps": 256,
                "batch_size": 256,
                "n_epochs": 10,
                "policy_kwargs": {"net_arch": [256, 256]},
            },
            "env": {"id": "CartPole-v1", "n_envs": 8, "backend": "vector"},
            "budget": {"total_timesteps": steps},
            "evaluation": {"every_steps": None, "final_episodes": 0},
            "checkpoint": {"every_steps": steps},
            "tracking": {"tensorboard": False, "csv": False},
            "resources": {"cpus": 0.1, "gpus": share, "device": "cpu" if pretend else "cuda"},
            "seed": seed,
        }
    )


def measure(runs: int, share: float, steps: int, pretend: bool) -> Packing:
    """Train runs with a share of the GPU each, as many together as fit, and return their speed together."""
    home = Path(tempfile.mkdtemp(prefix="rlp-gpu-"))
    looks: list[Gpu] = []

    def look(_: Sequence[Progress]) -> None:
        if (gpu := read_gpu()) is not None:
            looks.append(gpu)

    try:
        specs = [spec(seed, share, steps, pretend) for seed in range(runs)]
        records = train_on_ray(specs, home, RayOptions(max_retries=0), look)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    failed = [record.reason for record in records if record.state != "completed"]
    if failed:
        raise RlPlatformError(f"{len(failed)} of {runs} runs with {share:g} of a GPU failed: {failed[0]}")
    return Packing(
        runs,
        share,
        sum(record.progress.step for record in records) / _seconds(records),
        max((gpu.memory_mib for gpu in looks), default=0),
        sum(gpu.utilization_percent for gpu in looks) / max(1, len(looks)),
    )


def read_gpu() -> Gpu | None:
    """Return what the first GPU does now; None where there is none."""
    try:
        line = subprocess.run(QUERY, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, memory, utilization = (part.strip() for part in line.splitlines()[0].split(","))
    return Gpu(name, int(memory), int(utilization))


def _seconds(records: Sequence[RunRecord]) -> float:
    attempts = [attempt for record in records for attempt in record.attempts]
    ended = [attempt.ended_at for attempt in attempts if attempt.ended_at is not None]
    return (max(ended) - min(attempt.started_at for attempt in attempts)).total_seconds()


def report(alone: Packing, packed: Sequence[Packing]) -> str:
    """Return the table."""
    lines = [
        "| trainers | `gpus` of each | steps/s together | against one after the other | memory, most | GPU busy |",
        "|---|---|---|---|---|---|",
        f"| {alone.runs}, one after the other | 1 | {alone.steps_per_s:,.0f} | 1 | {alone.memory_mib:,} MiB | "
        f"{alone.utilization_percent:.0f} % |",
    ]
    lines += [
        f"| {one.runs} together | {one.share:g} | {one.steps_per_s:,.0f} | {one.steps_per_s / alone.steps_per_s:.2f} | "
        f"{one.memory_mib:,} MiB | {one.utilization_percent:.0f} % |"
        for one in packed
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write the page; without a GPU, write that nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", default=",".join(map(str, PACKED)), help="how many together, such as 1,4,8")
    parser.add_argument("--steps", type=int, default=131_072, help="environment steps of each run")
    parser.add_argument("--pretend", action="store_true", help="train on the CPU, with a GPU that only Ray knows of")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    command, gpu = "python -m benchmarks.gpu_packing", read_gpu()
    if gpu is None and not options.pretend:
        write_page(options.page, TITLE, command, NOT_RUN)
        return
    packed = [int(number) for number in options.packed.split(",")]
    with ray_session(num_cpus=max(os.cpu_count() or 1, *packed), num_gpus=1):
        alone = measure(ALONE, 1.0, options.steps, options.pretend)
        table = report(alone, [measure(number, 1 / number, options.steps, options.pretend) for number in packed])
    where = "**Pretended**: on the CPU; this checks the script and tells nothing of a GPU." if options.pretend else ""
    about = (__doc__ or "").strip().rpartition("\n\n")[2]
    name = gpu.name if gpu is not None else "none"
    body = f"{about}\n\n{where}\n\n{table}\n\n{describe_machine()} GPU: {name}."
    write_page(options.page, TITLE, command, body)


NOT_RUN = """**Not run: the machine that made this page has no GPU.** On one that has, the command above measures the
environment steps per second of 1, 4, 8 and 16 trainers that share the GPU against trainers one after the other, and
writes its table here.

What is known without a GPU: eight runs that book `gpus: 0.125` train together on a GPU that only Ray knows of, and a
ninth waits (`tests/integration/test_ray_runs.py`); a run's share is also a cap of its memory
(`tests/unit/cluster/test_resources.py`); and `--pretend` takes the script through all of its steps on the CPU."""


if __name__ == "__main__":
    main()
