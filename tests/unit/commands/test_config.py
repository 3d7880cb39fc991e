"""`rlplatform config` on files of runs and of searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlplatform.commands.config import app
from rlplatform.errors import SpecError

ROOT = Path(__file__).parents[3]
RUN = str(ROOT / "configs" / "train" / "cartpole_ppo.yaml")
SEARCH = str(ROOT / "configs" / "search" / "cartpole_ppo.yaml")


def invoke(*arguments: str) -> str:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout


def test_a_run_and_a_search_are_checked_in_one_command() -> None:
    run, search = invoke("validate", RUN, SEARCH).splitlines()
    assert run.startswith(f"{RUN}: ppo on CartPole-v1, 8 environments (vector, ")
    assert search.startswith(f"{SEARCH}: 32 trials of 8 parameters by tpe and asha, 1 seed each; ppo on CartPole-v1, ")


def test_a_search_comes_back_as_json_with_its_run_made_definite() -> None:
    spec = json.loads(invoke("validate", SEARCH, "--json", "--set", "budget.trials=12"))[SEARCH]
    assert spec["budget"]["trials"] == 12
    assert spec["run"]["env"]["backend"] == "vector"


def test_a_search_that_cannot_work_is_refused() -> None:
    with pytest.raises(SpecError, match=r"`algorithm.gama` is not an option of `ppo`\. Did you mean 'gamma'"):
        invoke("validate", SEARCH, "--set", "space.algorithm.gama={type: uniform, low: 0, high: 1}")


@pytest.mark.parametrize(("arguments", "title"), [((), "run"), (("run",), "run"), (("search",), "search")])
def test_there_is_a_schema_of_both(arguments: tuple[str, ...], title: str) -> None:
    assert json.loads(invoke("schema", *arguments))["title"] == f"rlplatform {title}"
