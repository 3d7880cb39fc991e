"""Are two runs the same? Compared are every byte of the weights and optimizers, and every metric but the clock's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.save_util import load_from_zip_file

from rlplatform import names
from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.jsonl import read_jsonl
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import CheckpointError


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common."""

    weights_equal: bool
    metrics_equal: bool
    difference: str
    """The first thing that differs, in words; empty when nothing does."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.weights_equal and self.metrics_equal


def compare_runs(first: RunDir, second: RunDir) -> Comparison:
    """Compare the newest checkpoints' weights and the metrics of two runs."""
    digests = [weights_sha256(newest_policy(run)) for run in (first, second)]
    weights_equal = digests[0] == digests[1]
    difference = "" if weights_equal else f"weights: sha256 {digests[0][:12]}… and {digests[1][:12]}…"
    for line, (left, right) in enumerate(zip_longest(comparable_records(first), comparable_records(second)), start=1):
        if left != right:
            return Comparison(
                weights_equal, False, difference or f"{names.METRICS_FILE} line {line}: {left} and {right}"
            )
    return Comparison(weights_equal, True, difference)


def newest_policy(run: RunDir) -> Path:
    """Return the newest undamaged checkpoint of a run.

    Raises:
        CheckpointError: It has none.
    """
    checkpoint, _ = CheckpointStore(run.checkpoints_path, keep_last=1).newest_good()
    if checkpoint is None:
        raise CheckpointError(f"Run {run.id} has no undamaged checkpoint. Resume it with `rlplatform resume {run.id}`.")
    return checkpoint.path


def weights_sha256(policy_folder: Path) -> str:
    """Return the sha256 of every tensor in a policy folder's SB3 zip: networks, optimizers and other variables."""
    _, parameters, variables = load_from_zip_file(policy_folder / names.MODEL_FILE, device="cpu")
    digest = hashlib.sha256()
    for path, value in _leaves({"parameters": parameters, "variables": variables or {}}, ""):
        digest.update(path.encode())
        digest.update(value.detach().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return digest.hexdigest()


def comparable_records(run: RunDir) -> Iterator[dict[str, Any]]:
    """Yield the records of metrics.jsonl without the readings of the clock."""
    for record in read_jsonl(run.metrics_path):
        yield {key: value for key, value in record.items() if not key.startswith(names.WALL_CLOCK_PREFIX)}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    else:
        yield path, value
