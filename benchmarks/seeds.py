"""What benchmarks that train over seeds share: a process for each training, and a record of each that is kept.

What has a record is not trained again, and what was interrupted goes on from its last checkpoint. So the command of
such a benchmark may be stopped and given again at any time.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.page import ROOT
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.report.statistics import Estimate
from rlplatform.specs.load import load_run_spec
from rlplatform.specs.run import RunSpec

CONFIGS = ROOT / "configs" / "train"

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Training:
    """A run that is done."""

    run_dir: RunDir
    spec: RunSpec
    step: int
    wall_s: float
    """Seconds of the last attempt, imports left out."""
    cpu_s: float
    """CPU seconds of the last attempt."""
    resumed: bool
    """The run was interrupted, so the seconds are not those of the whole run."""


def train_missing(module: str, wanted: Mapping[Path, Sequence[str]], n_jobs: int) -> int:
    """Train what has no record yet, each in a process of its own, and return how many failed.

    Args:
        module: What to run with ``python -m``.
        wanted: The arguments that make each record.
        n_jobs: Trainings at a time.
    """

    def train_one(item: tuple[Path, Sequence[str]]) -> bool:
        record, arguments = item
        command = [sys.executable, "-m", module, *arguments]
        return not record.exists() and subprocess.run(command, cwd=ROOT, check=False).returncode != 0

    with ThreadPoolExecutor(n_jobs) as pool:
        return sum(pool.map(train_one, wanted.items()))


def train(record: Path, config: str, overrides: Sequence[str]) -> Training:
    """Train a file of `configs/train`, or go on with what was begun for this record.

    Args:
        record: Where the result will be kept, in the folder `records` of the benchmark's own home.
        config: The file's name.
        overrides: What differs from it.
    """
    from rlplatform.train.trainer import Trainer

    record.parent.mkdir(parents=True, exist_ok=True)
    pointer = record.with_suffix(".run")
    resumed = pointer.exists()
    if resumed:
        trainer = Trainer.open(RunDir(Path(pointer.read_text())))
    else:
        spec = load_run_spec(CONFIGS / f"{config}.yaml", overrides=list(overrides)).spec
        trainer = Trainer.create(spec, record.parents[1])
        pointer.write_text(str(trainer.run_dir.path))
    began, cpu_began = time.monotonic(), time.process_time()
    result = trainer.fit()
    wall, cpu = time.monotonic() - began, time.process_time() - cpu_began
    cpu += resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    return Training(trainer.run_dir, trainer.spec, result.step, wall, cpu, resumed)


def read_records(folder: Path, kind: type[_Result]) -> list[_Result]:
    """Return the results that are kept in a folder."""
    return [kind(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def interval(estimate: Estimate) -> str:
    """Return an estimate with its interval as a cell of a table."""
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def minutes(seconds: Sequence[float]) -> str:
    """Return the median in minutes as a cell of a table."""
    return f"{np.median(seconds) / 60:.1f}" if seconds else "—"
