"""A policy folder of a run becomes a version that acts as the run's policy does, with all that resuming needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from rlplatform import names
from rlplatform.errors import CheckpointError, RegistryError
from rlplatform.policy.bundle import Lineage
from rlplatform.policy.publish import publish_policy
from rlplatform.policy.runtime import PolicyRuntime
from rlplatform.specs.load import load_run_spec
from rlplatform.specs.run import RunSpec
from rlplatform.specs.settings import Settings
from rlplatform.store.registry import open_registry
from rlplatform.train.policy_folder import load_policy, save_policy

SPEC = RunSpec.model_validate(
    {
        "algorithm": {"name": "ppo"},
        "env": {"id": "Pendulum-v1", "normalize": {"obs": True}},
        "budget": {"total_timesteps": 64},
        "seed": 3,
    }
)


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "best"
    folder.mkdir()
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=1, seed=0))
    save_policy(
        PPO("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, n_steps=64, n_epochs=1, seed=0).learn(64), folder
    )
    return folder


def test_a_published_policy_acts_as_the_run_does(policy_folder: Path, tmp_path: Path) -> None:
    registry = open_registry(Settings(home=tmp_path))
    version = publish_policy(
        registry,
        "pendulum",
        policy_folder,
        SPEC,
        Lineage(run_id="r", checkpoint="best"),
        {names.EVAL_RETURN_MEAN: -1200.0, "broken": float("nan")},
    )
    obs = np.random.default_rng(0).uniform(-8, 8, (500, 3)).astype(np.float32)
    expected, _ = load_policy(policy_folder, "ppo").act(obs)
    np.testing.assert_allclose(PolicyRuntime.load(version.bundle_path).predict(obs).action, expected, atol=1e-5)
    lineage = version.manifest.lineage
    assert (lineage.run_id, lineage.env_id, lineage.seed) == ("r", "Pendulum-v1", 3)
    assert lineage.spec_digest == SPEC.training_digest()
    assert version.manifest.metrics == {names.EVAL_RETURN_MEAN: -1200.0}
    registry.verify(version)


def test_what_resuming_needs_stands_beside_it(policy_folder: Path, tmp_path: Path) -> None:
    version = publish_policy(open_registry(Settings(home=tmp_path)), "pendulum", policy_folder, SPEC)
    again = load_policy(version.bundle_path, "ppo")
    assert again.normalizer is not None
    assert load_run_spec(version.bundle_path / names.SPEC_FILE, environ={}).spec == SPEC


def test_a_bad_name_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="A model's name must be"):
        publish_policy(open_registry(Settings(home=tmp_path)), "../up", tmp_path, SPEC)


def test_a_folder_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No policy in"):
        publish_policy(open_registry(Settings(home=tmp_path)), "pendulum", tmp_path, SPEC)
