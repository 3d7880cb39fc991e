"""`rlplatform searches`, and what `rlplatform tune` says in the end, on searches that lie on disk."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import typer

from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.artifacts.search_record import best_trial
from rlplatform.cli import main
from rlplatform.commands.tune import finish, load, search_of_this_job
from rlplatform.names import HOME_ENV_VAR, JOB_ENV_VAR
from rlplatform.specs.search_load import dump_search_spec, load_search_spec
from rlplatform.tune.progress import SearchResult
from tests.unit.report.searches import add_trial, make_search

POINT = {"algorithm.learning_rate": 1e-3, "env.n_envs": 2}


@pytest.fixture
def search() -> SearchDir:
    """A search with two trials in the test's home."""
    found = make_search(Path(os.environ["RLPLATFORM_HOME"]), seeds=(1, 2))
    add_trial(found, 0, POINT, [[10.0], [30.0]])
    add_trial(found, 1, {**POINT, "algorithm.learning_rate": 1e-2}, [[40.0], [60.0]], "stopped")
    return found


def end(search: SearchDir, state: Literal["completed", "stopped", "failed"]) -> SearchResult:
    """Return how the search would have ended."""
    trials = tuple(search.trials())
    return SearchResult(search.id, state, "for a test", trials, best_trial(trials, search.record.objective))


def test_searches_are_listed_and_shown(search: SearchDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["searches", "list"]) == 0
    assert search.id in capsys.readouterr().out
    assert main(["searches", "show", "small"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert "2 of 20 ended, 512 steps" in captured.out
    assert lines[-2].split()[:5] == ["1", "0001", "stopped", "50.0", "[40.0,"]
    assert f"rlplatform tune --resume {search.id}" in captured.err


def test_shown_as_json(search: SearchDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["searches", "show", search.id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [trial["trial"] for trial in shown["trials"]] == ["0001", "0000"]


def test_a_report_is_written_on_demand(search: SearchDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["searches", "report", search.id]) == 0
    assert str(search.path / "best.yaml") in capsys.readouterr().out.splitlines()


def test_no_searches_say_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["searches", "list"]) == 0
    assert "rlplatform tune configs/search/" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["searches", "show", "no-such"], ["tune", "--resume", "no-such"]])
def test_an_unknown_search_is_refused(
    command: list[str], search: SearchDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert "There is no search 'no-such'" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("stopped", 130), ("failed", 1)])
def test_the_exit_code_says_how_a_search_ended(
    state: Any, code: int, search: SearchDir, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit, match=str(code)) as left:
        finish(search, end(search, state), None, False)
    assert left.value.exit_code == code
    captured = capsys.readouterr()
    assert (f"rlplatform tune --resume {search.id}" in captured.err) == (state != "completed")
    assert "best.yaml --seeds 1-5" in captured.err
    assert "50.0 [40.0, 60.0]" in captured.out


def test_a_search_in_which_every_trial_failed_is_no_success(
    search: SearchDir, capsys: pytest.CaptureFixture[str]
) -> None:
    search.rewrite_trials([one.model_copy(update={"state": "failed", "reason": "NaN"}) for one in search.trials()])
    with pytest.raises(typer.Exit, match="1"):
        finish(search, end(search, "completed"), "small", False)
    assert "Nothing is published as small: no trial has a value." in capsys.readouterr().err


def test_the_end_as_json(search: SearchDir, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit, match="0"):
        finish(search, end(search, "completed"), None, True)
    found = json.loads(capsys.readouterr().out)
    assert (found["search"], found["state"], found["published"]) == (search.id, "completed", None)
    assert found["best"]["trial"] == "0001"
    assert found["best"]["runs"][0] == f"searches/{search.id}/trials/0001/seed_1"
    assert str(search.path / "leaderboard.csv") in found["files"]


def test_a_search_that_is_completed_is_shown_again_wherever_it_lies(
    search: SearchDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search.update(state="completed")
    monkeypatch.setenv(HOME_ENV_VAR, str(tmp_path / "another home"))
    assert main(["tune", "--resume", str(search.path)]) == 0
    captured = capsys.readouterr()
    assert "completed before" in captured.err
    assert captured.out.splitlines()[1].split()[:3] == ["1", "0001", "stopped"]


def test_a_job_that_is_tried_again_goes_on_with_its_search(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(os.environ["RLPLATFORM_HOME"])
    monkeypatch.setenv(JOB_ENV_VAR, "job-1")
    mine = make_search(home)
    other = make_search(home, name="other").spec()
    assert getattr(search_of_this_job(mine.spec()), "id", None) == mine.id
    monkeypatch.setenv(JOB_ENV_VAR, "job-2")
    assert search_of_this_job(other) is None
    monkeypatch.delenv(JOB_ENV_VAR)
    assert search_of_this_job(other) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Give the file of a search"),
        (("x.yaml", "--resume", "y"), "Give the file of a search"),
        (("--resume", "y", "--trials", "3"), "as it was asked for"),
        (("x.yaml", "--publish", "No Such Name"), "A model's name must be"),
        (("no-such.yaml",), "there is no such file"),
        (("x.yaml", "--trials", "0"), "--trials"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_the_search_that_the_documentation_shows_can_be_run(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    (block,) = re.findall(r"^```yaml\n(run:.*?)^```", (root / "docs/tune.md").read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "search.yaml"
    path.write_text(block.replace("../train/", f"{root}/configs/train/"))
    spec = load_search_spec(path, environ={})
    assert (spec.sampler.name, spec.scheduler.name, spec.seeds) == ("tpe", "asha", (1, 2, 3))


def test_the_switch_for_wandb_keeps_what_the_search_says_of_it(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(dump_search_spec(make_search(tmp_path / "home").spec()))
    assert load(path, (), wandb=False).run.tracking.wandb is None
    switched = load(path, ["budget.trials=3"], wandb=True)
    assert switched.run.tracking.wandb is not None
    assert (switched.run.tracking.wandb.mode, switched.budget.trials) == ("online", 3)
    kept = load(path, ["run.tracking.wandb.mode=offline"], wandb=True).run.tracking.wandb
    assert kept is not None
    assert kept.mode == "offline"
