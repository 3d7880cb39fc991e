"""From a config to a served policy, typed as a person would; each test begins where a person would begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir, list_runs
from rlplatform.cli import main
from rlplatform.report.tables import run_row
from rlplatform.specs.load import load_run_spec
from tests.e2e.cli import CONFIG, write_config
from tests.e2e.conftest import CommandLine


def test_train_look_evaluate_publish_promote_and_prune(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    trained = cli.json("train", str(config), "--local", "--seeds", "1,2", "--name", "small")
    rows, (group,) = trained["runs"], trained["groups"]
    assert [(row["seed"], row["state"], row["step"], row["n_episodes"]) for row in rows] == [
        (1, "completed", 512, 2),
        (2, "completed", 512, 2),
    ]
    assert group["seeds"] == 2
    assert group["iqm"]["low"] <= group["iqm"]["value"] <= group["iqm"]["high"]

    run = group["best_run"]
    assert {row["run"] for row in cli.json("runs", "list")} == {row["run"] for row in rows}
    assert "small" in cli("runs", "list", "--state", "completed")
    shown = cli.json("runs", "show", run)
    assert shown["id"] == run
    assert [checkpoint["step"] for checkpoint in shown["checkpoints"]][-1] == 512

    of_run = cli.json("evaluate", run, "--episodes", "3")
    version = cli.json("models", "publish", run, "--episodes", "30")
    assert version["reference"] == "small@1"
    assert version["manifest"]["lineage"]["run_id"] == run
    of_model = cli.json("evaluate", "small@1", "--episodes", "3")
    assert of_model["result"]["returns"] == of_run["result"]["returns"]

    assert cli.json("models", "promote", "small@1")["promote"]
    cli("models", "alias", "small@1", "canary")
    assert cli.json("models", "list") == [{"name": "small", "versions": [1], "aliases": {"canary": 1, "champion": 1}}]
    assert "small@1" in cli("models", "show", "small")
    assert not cli.json("models", "promote", "small@1", code=1)["promote"]

    planned = cli.json("runs", "prune", "--dry-run")
    assert {one["run_id"]: one["remove"] for one in planned["runs"]} == {row["run"]: row["run"] != run for row in rows}
    assert len(list_runs(tmp_path / "home")) == 2
    cli("runs", "prune", "--yes")
    assert [record.id for record in list_runs(tmp_path / "home")] == [run]

    cli("models", "delete", "small@1", "--yes", code=2)
    cli("models", "delete", "small", "--yes")
    assert cli.json("models", "list") == []


def test_ctrl_c_stops_with_a_checkpoint_and_the_printed_command_goes_on(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rlplatform",
            "train",
            str(config),
            "--local",
            "--set",
            "budget.total_timesteps=10_000_000",
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = _wait_for_checkpoint(tmp_path / "home")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"rlplatform resume {run.id}" in err
    stopped = run.read()
    assert stopped.state == "stopped"

    total = run_row(stopped).step + 256
    cli("resume", run.id, "--local", "--set", f"budget.total_timesteps={total}")
    assert f"Amended {run.id}: budget.total_timesteps" in cli.err
    assert f"schedules now end at step {total}" in cli.err
    completed = run_row(run.read())
    assert completed.state == "completed"
    assert completed.step >= total


def test_a_request_from_another_process_pauses_a_run(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rlplatform",
            "train",
            str(config),
            "--local",
            "--set",
            "budget.total_timesteps=10_000_000",
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        run = _wait_for_checkpoint(tmp_path / "home")
        cli("runs", "pause", run.id)
        assert process.wait(timeout=60) == 130
    assert run.read().state == "paused"
    cli("runs", "pause", run.id, code=2)


def test_verify_kills_and_resumes_and_finds_the_same_bytes(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    found = cli.json("verify", str(config), "--set", "budget.total_timesteps=4096")
    assert found["reproducible"]
    assert len(found["kills"]) == 1
    assert len({run["weights_sha256"] for run in found["runs"]}) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == []


def test_explain_shows_values_with_their_origin_and_trains_nothing(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    values = cli.json("train", str(config), "--explain", "--set", "algorithm.gamma=0.9", "--wandb")
    assert values["algorithm.n_steps"] == {"value": 64, "origin": f"{config}:3"}
    assert values["algorithm.gamma"]["origin"] == "--set algorithm.gamma=0.9"
    assert values["tracking.wandb.mode"]["value"] == "online"
    assert not (tmp_path / "home" / names.RUNS_DIR).exists()


def test_the_switch_for_wandb_keeps_what_the_config_says_of_it(cli: CommandLine, tmp_path: Path) -> None:
    config = write_config(tmp_path, CONFIG + "tracking: {wandb: {project: mine, mode: offline}}\n")
    values = cli.json("train", str(config), "--explain", "--wandb")
    assert values["tracking.wandb.project"]["value"] == "mine"
    assert values["tracking.wandb.mode"]["value"] == "offline"


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_init_writes_a_config_that_validates(algorithm: str, cli: CommandLine, tmp_path: Path) -> None:
    cli("config", "init", "new.yaml", "--algorithm", algorithm)
    specs = cli.json("config", "validate", "new.yaml")
    assert specs["new.yaml"]["algorithm"]["name"] == algorithm
    assert specs["new.yaml"]["env"]["backend"] != "auto"
    cli("config", "init", "new.yaml", code=2)


def test_what_to_type_next_is_quoted_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my runs.yaml"
    assert main(["config", "init", str(path), "--env", "my: env"]) == 0
    assert f"rlplatform train '{path}' " in capsys.readouterr().err
    assert load_run_spec(path).spec.env.id == "my: env"


def test_the_schema_is_one_of_every_algorithm(cli: CommandLine, tmp_path: Path) -> None:
    schema = json.loads(cli("config", "schema"))
    names_in_schema = schema["properties"]["algorithm"]["oneOf"][-1]["enum"]
    assert names_in_schema == [entry["name"] for entry in cli.json("algorithms")]


@pytest.mark.parametrize(
    ("command", "name"),
    [("environments", "CartPole-v1"), ("wrappers", "landing_monitor"), ("rewards", "simple_cartpole")],
)
def test_catalogs_are_listed(command: str, name: str, cli: CommandLine, tmp_path: Path) -> None:
    assert name in cli(command)
    assert name in [entry.get("name", entry.get("id")) for entry in cli.json(command)]


def test_the_doctor_finds_this_installation_well(cli: CommandLine, tmp_path: Path) -> None:
    checks = {check["name"]: check["status"] for check in cli.json("doctor", "--no-ray")}
    assert {"python", "packages", "torch", "gpu", "home", "disk"} <= checks.keys()
    assert "failed" not in checks.values()


def _wait_for_checkpoint(home: Path) -> RunDir:
    """Return the only run once it has a checkpoint."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = list((home / names.RUNS_DIR).glob(f"*/{names.CHECKPOINTS_DIR}/step_*"))
        if found:
            return RunDir(found[0].parents[1])
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint in {home} after 60 s; {os.listdir(home) if home.exists() else 'no home'}")
