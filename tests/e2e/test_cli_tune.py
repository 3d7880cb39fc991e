"""Searches and comparisons, typed as a person would."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlplatform import cli, names
from rlplatform.artifacts.search_dir import SearchDir, list_searches
from tests.e2e.cli import CONFIG, rlplatform, write_config
from tests.e2e.conftest import CommandLine

SEARCH = """\
run: run.yaml
set:
  budget.total_timesteps: 256
  evaluation.every_steps: 128
  evaluation.final_episodes: 0
  resources.cpus: 0.5
space:
  algorithm.learning_rate: {type: loguniform, low: 1e-4, high: 1e-2}
  algorithm.n_epochs: {type: int, low: 1, high: 3}
budget: {trials: 4, concurrent: 2}
name: small
"""
ENDLESS = ("--set", "run.budget.total_timesteps=10_000_000", "--trials", "1")

SPACE = SEARCH[SEARCH.index("space:") : SEARCH.index("budget:")]

BAD_SEARCHES = {
    "unknown parameter": ("algorithm.learning_rate", "algorithm.learning_rte", "learning_rate"),
    "value that the run refuses": ("high: 1e-2", "high: -1", "low"),
    "empty space": (SPACE, "space: {}\n", "`space`"),
    "unknown sampler": ("name: small", "sampler: tpee", "Did you mean 'tpe'"),
    "metric that is never reported": (
        "evaluation.every_steps: 128\n",
        "evaluation.every_steps: null\n",
        "evaluation.every_steps",
    ),
    "missing run": ("run: run.yaml", "run: rum.yaml", "Did you mean 'run.yaml'"),
}


def write_search(folder: Path, text: str = SEARCH) -> Path:
    """Write a run's config and a search over it, and return the search's path."""
    write_config(folder)
    path = folder / "search.yaml"
    path.write_text(text)
    return path


def test_a_search_ends_in_a_leaderboard_a_spec_that_trains_and_a_model(cli: CommandLine, tmp_path: Path) -> None:
    # In a process of its own, as a Ray that was started leaves its token in the environment.
    done = rlplatform("tune", str(write_search(tmp_path)), "--publish", "small", "--json", cwd=tmp_path, timeout_s=280)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert [(trial["state"], trial["step"]) for trial in found["trials"]] == [("completed", 256)] * 4
    assert [trial["rank"] for trial in found["trials"]] == [1, 2, 3, 4]
    assert found["published"] == "small@1"

    folder = Path(found["path"])
    with (folder / names.LEADERBOARD_CSV_FILE).open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [trial["trial"] for trial in found["trials"]]
    assert (folder / names.PLOTS_DIR / "parallel_coordinates.svg").read_text().startswith("<?xml")
    trained = cli.json("train", str(folder / names.BEST_SPEC_FILE), "--local")["runs"]
    assert [(run["state"], run["step"]) for run in trained] == [("completed", 256)]

    model = cli.json("evaluate", "small@1", "--episodes", "2")["result"]
    run = cli.json("evaluate", found["best"]["runs"][0], "--episodes", "2")["result"]
    assert model["returns"] == run["returns"]
    assert [search["state"] for search in cli.json("searches", "list")] == ["completed"]
    assert cli.json("searches", "show", "small")["best_trial"] == found["best"]["trial"]


@pytest.mark.timeout(900)  # Two starts of Ray.
def test_ctrl_c_stops_a_search_and_the_printed_command_goes_on(tmp_path: Path) -> None:
    begun = _start(tmp_path, str(write_search(tmp_path)), *ENDLESS)
    search = _wait_for_values(tmp_path / "home")
    err = _stop(begun, signal.SIGINT)
    assert f"rlplatform tune --resume {search.id}" in err
    (before,) = search.trials()

    resumed = _start(tmp_path, "--resume", search.id)
    _wait_until(lambda: search.trials()[0].step > before.step)
    err = _stop(resumed, signal.SIGTERM)
    assert f"Going on with search {search.id}" in err
    assert search.read().attempts == 2
    assert len(search.trials()) == 1


@pytest.mark.parametrize("case", BAD_SEARCHES)
def test_bad_searches_are_refused_before_anything_starts(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, expected = BAD_SEARCHES[case]
    assert old in SEARCH
    assert cli.main(["tune", str(write_search(tmp_path, SEARCH.replace(old, new)))]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert expected in err
    assert not (tmp_path / "home" / names.SEARCHES_DIR).exists()


def test_a_comparison_has_intervals_and_can_be_taken_up(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path, CONFIG.replace("total_timesteps: 512", "total_timesteps: 128"))
    found = cli.json("compare", str(config), "--algorithm", "a2c", "--seeds", "1,2", "--local")
    assert [(group["label"], group["seeds"]) for group in found["groups"]] == [("run", 2), ("run:a2c", 2)]
    assert found["groups"][0]["improvement"] is None
    assert 0.0 <= found["groups"][1]["improvement"]["value"] <= 1.0
    assert {"results.json", "groups.csv", "runs.csv"} <= {path.name for path in Path(found["path"]).iterdir()}
    again = cli.json("compare", "--resume", found["id"], "--local")
    assert again["groups"] == found["groups"]
    assert len(cli.json("runs", "list")) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("compare",), "Give configs"),
        (("compare", "run.yaml", "run.yaml"), "compared with itself"),
        (("compare", "run.yaml", "--seeds", "x"), "Write `1,2,3` or `1-4`"),
        (("compare", "run.yaml", "--algorithm", "pppo"), "Did you mean 'ppo'"),
        (("compare", "run.yaml", "--resume", "x"), "as it was asked for"),
        (("compare", "--resume", "x"), "comparisons"),
    ],
)
def test_bad_comparisons_are_refused(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    assert cli.main(arguments) == 2
    assert expected in capsys.readouterr().err


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlplatform", "tune", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stop(process: subprocess.Popen[str], how: signal.Signals) -> str:
    """Stop a search that must end as one that can be resumed, and return what it said."""
    process.send_signal(how)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return err


def _wait_for_values(home: Path) -> SearchDir:
    """Return the only search once its only trial has a value."""

    def has_values() -> bool:
        records = list_searches(home) if home.exists() else []
        trials = SearchDir.open(home, records[0].id).trials() if records else []
        return len(trials) == 1 and trials[0].value is not None

    _wait_until(has_values)
    return SearchDir.open(home, list_searches(home)[0].id)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 300 s"
        time.sleep(0.1)
