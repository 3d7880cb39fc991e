"""Running the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONFIG = """\
algorithm:
  name: ppo
  n_steps: 64
  batch_size: 64
  n_epochs: 1
  policy_kwargs:
    net_arch: [16]
env:
  id: CartPole-v1
  n_envs: 2
  backend: sync
budget:
  total_timesteps: 512
evaluation:
  every_steps: 256
  n_episodes: 2
  final_episodes: 2
checkpoint:
  every_steps: 128
"""


def rlplatform(
    *arguments: str, cwd: Path, timeout_s: float = 120.0, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `rlplatform` with arguments in a folder; its home is the test's."""
    return subprocess.run(
        [sys.executable, "-m", "rlplatform", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        input=input,
    )


def write_config(folder: Path, text: str = CONFIG) -> Path:
    """Write a config and return its path."""
    path = folder / "run.yaml"
    path.write_text(text)
    return path
