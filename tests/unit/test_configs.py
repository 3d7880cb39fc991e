"""Every file in configs/train loads, names its source, and covers what is promised."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from rlplatform.specs.load import dump_spec, load_run_spec

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "train").glob("*.yaml"))
PROMISED = {
    "ppo": {
        "CartPole-v1",
        "Acrobot-v1",
        "MountainCarContinuous-v0",
        "Pendulum-v1",
        "LunarLander-v3",
        "LunarLanderContinuous-v3",
        "BipedalWalker-v3",
    },
    "a2c": {"CartPole-v1", "Acrobot-v1"},
    "dqn": {"CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"},
    "sac": {"Pendulum-v1", "MountainCarContinuous-v0", "LunarLanderContinuous-v3"},
    "td3": {"Pendulum-v1", "MountainCarContinuous-v0", "LunarLanderContinuous-v3"},
    "tqc": {"Pendulum-v1"},
    "qrdqn": {"CartPole-v1"},
    "trpo": {"CartPole-v1"},
    "ars": {"CartPole-v1"},
    "grpo": {
        "CartPole-v1",
        "Acrobot-v1",
        "LunarLander-v3",
        "LunarLanderContinuous-v3",
        "Pendulum-v1",
        "MountainCarContinuous-v0",
    },
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    spec = load_run_spec(path).spec
    copy = tmp_path / path.name
    copy.write_text(dump_spec(spec), encoding="utf-8")
    assert load_run_spec(copy).spec == spec


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_evaluates_more_than_once_and_fits_its_environment(path: Path) -> None:
    spec = load_run_spec(path).spec
    assert spec.evaluation.every_steps is not None
    assert spec.budget.total_timesteps // spec.evaluation.every_steps >= 2
    assert spec.evaluation.final_episodes == 100
    assert spec.env.id in gym.registry


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_named_after_its_environment_and_algorithm(path: Path) -> None:
    spec = load_run_spec(path).spec
    environment = spec.env.id.split("-v")[0].lower()
    assert path.stem.replace("_", "") == environment + spec.algorithm.name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_what_to_expect_and_where_its_settings_come_from(path: Path) -> None:
    comment = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert "# Expected: " in comment
    assert "# Source: " in comment


@pytest.mark.parametrize("algorithm", PROMISED)
def test_the_promised_configs_are_there(algorithm: str) -> None:
    specs = [load_run_spec(path).spec for path in CONFIGS]
    assert {spec.env.id for spec in specs if spec.algorithm.name == algorithm} >= PROMISED[algorithm]
