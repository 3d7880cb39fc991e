"""Every file in configs/search loads, says where its ranges come from, and covers what is promised."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from rlplatform.specs.search_load import dump_search_spec, load_search_spec

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "search").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_search_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    spec = load_search_spec(path, environ={})
    copy = tmp_path / path.name
    copy.write_text(dump_search_spec(spec), encoding="utf-8")
    assert load_search_spec(copy, environ={}) == spec


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_search_tunes_the_run_that_it_is_named_after(path: Path) -> None:
    spec = load_search_spec(path, environ={})
    environment = spec.run.env.id.split("-v")[0].lower()
    assert path.stem.replace("_", "") == environment + spec.run.algorithm.name
    assert gym.spec(spec.run.env.id).entry_point is not None
    assert "algorithm.learning_rate" in spec.space


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_search_says_why_its_ranges_are_what_they_are(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("# Source: ") for line in lines)
    assert sum(line.startswith("  #") for line in lines) >= 3


def test_the_promised_algorithms_have_a_search() -> None:
    found = {load_search_spec(path, environ={}).run.algorithm.name for path in CONFIGS}
    assert found >= {"ppo", "a2c", "dqn", "sac", "td3", "grpo"}
