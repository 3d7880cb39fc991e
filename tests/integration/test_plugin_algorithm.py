"""The example package is installed as a user would install it, and a run's spec finds its algorithm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin_algorithm"
TRAIN = """
import yaml
from stable_baselines3.common.env_util import make_vec_env
from rlplatform.algos.build import build_model
from rlplatform.specs.run import RunSpec

spec = RunSpec.model_validate(yaml.safe_load(open("cartpole_reinforce.yaml")))
envs = make_vec_env(spec.env.id, n_envs=spec.env.n_envs)
model = build_model(spec.algorithm, envs, seed=0, device="cpu")
model.learn(512)
print(type(model).__module__, model._n_updates)
"""


def test_an_installed_package_adds_an_algorithm(tmp_path: Path) -> None:
    source = shutil.copytree(EXAMPLE, tmp_path / "source")  # building leaves files beside the sources
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=source, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["rlplatform_reinforce", "1"]
