"""What `rlplatform compare` trains, and what it refuses before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlplatform.commands.compare import comparison_specs, print_groups
from rlplatform.errors import SpecError
from rlplatform.report.comparison import compare_groups
from rlplatform.report.tables import run_row
from tests.unit.report.records import record

CONFIG = "algorithm: {{name: {0}}}\nenv: {{id: {1}, backend: sync}}\nbudget: {{total_timesteps: {2}}}\n"


def write(folder: Path, name: str, algorithm: str = "ppo", env: str = "CartPole-v1", steps: int = 64) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONFIG.format(algorithm, env, steps))
    return path


def test_every_config_is_trained_with_every_seed(tmp_path: Path) -> None:
    configs = [write(tmp_path, "a.yaml"), write(tmp_path, "b.yaml", "a2c")]
    groups = comparison_specs(configs, (1, 2), (), ["budget.total_timesteps=128"])
    assert {label: [(spec.algorithm.name, spec.seed) for spec in specs] for label, specs in groups.items()} == {
        "a": [("ppo", 1), ("ppo", 2)],
        "b": [("a2c", 1), ("a2c", 2)],
    }
    assert {spec.budget.total_timesteps for specs in groups.values() for spec in specs} == {128}


def test_other_algorithms_stand_beside_the_config_at_their_defaults(tmp_path: Path) -> None:
    groups = comparison_specs([write(tmp_path, "a.yaml")], (3,), ["ppo", "trpo"], ())
    assert {label: specs[0].algorithm.name for label, specs in groups.items()} == {"a": "ppo", "a:trpo": "trpo"}


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    configs = [write(tmp_path, "x/a.yaml"), write(tmp_path, "y/a.yaml")]
    assert list(comparison_specs(configs, (1,), (), ())) == [str(path) for path in configs]


def test_a_config_is_not_compared_with_itself(tmp_path: Path) -> None:
    config = write(tmp_path, "a.yaml")
    with pytest.raises(SpecError, match="is compared with itself"):
        comparison_specs([config, config], (1,), (), ())


def test_environments_must_be_one(tmp_path: Path) -> None:
    configs = [write(tmp_path, "a.yaml"), write(tmp_path, "b.yaml", env="Acrobot-v1")]
    with pytest.raises(SpecError, match="a has CartPole-v1, b has Acrobot-v1"):
        comparison_specs(configs, (1,), (), ())


def test_a_final_evaluation_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"final_episodes` of a is 0"):
        comparison_specs([write(tmp_path, "a.yaml")], (1,), (), ["evaluation.final_episodes=0"])


def test_budgets_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison_specs([write(tmp_path, "a.yaml"), write(tmp_path, "b.yaml", steps=1_000)], (1,), (), ())
    assert "the budgets differ: a 64, b 1,000 steps" in capsys.readouterr().err


def test_the_table_has_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        label: [run_row(record(seed, final=seed + more)) for seed in (1, 2)] for label, more in (("a", 0), ("b", 9))
    }
    print_groups(compare_groups({**rows, "c": [run_row(record(1))]}))
    _, first, second, third = capsys.readouterr().out.splitlines()
    assert "1.5 [1.0, 2.0]" in first
    assert "1.00 [1.00, 1.00]" in second
    assert "0 of 1" in third
