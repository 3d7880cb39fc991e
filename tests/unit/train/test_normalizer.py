"""The statistics of VecNormalize: saved, loaded and applied as SB3 applies them."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlplatform.train.normalizer import Normalizer


def _trained(env_id: str = "Pendulum-v1") -> VecNormalize:
    venv = VecNormalize(DummyVecEnv([lambda: gym.make(env_id)] * 2), clip_obs=2.0, gamma=0.9)
    venv.seed(0)
    venv.action_space.seed(0)
    venv.reset()
    for _ in range(50):
        venv.step(np.stack([venv.action_space.sample() for _ in range(2)]))
    return venv


def test_saved_and_loaded_statistics_normalise_as_sb3_does(tmp_path: Path) -> None:
    venv = _trained()
    Normalizer.of(venv).save(tmp_path)
    loaded = Normalizer.load(tmp_path)
    assert loaded is not None
    obs = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32) * 5
    np.testing.assert_array_equal(loaded.normalize_obs(obs), venv.normalize_obs(obs))
    assert np.abs(loaded.normalize_obs(obs)).max() == 2.0


def test_statistics_written_to_a_fresh_wrapper_are_equal_and_not_shared(tmp_path: Path) -> None:
    venv, fresh = _trained(), VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), clip_obs=2.0)
    before = Normalizer.of(venv)
    before.write_to(fresh)
    np.testing.assert_array_equal(Normalizer.of(fresh).observations[""].mean, before.observations[""].mean)
    assert fresh.ret_rms.count == venv.ret_rms.count
    fresh.reset()
    np.testing.assert_array_equal(Normalizer.of(venv).observations[""].mean, before.observations[""].mean)


def test_a_policy_without_normalisation_has_no_statistics(tmp_path: Path) -> None:
    assert Normalizer.load(tmp_path) is None
