"""The command that a stranger types first: several seeds in Ray actors, compared, the best one published."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rlplatform.commands.demo import MODEL
from tests.e2e.cli import write_config
from tests.e2e.conftest import CommandLine

SMALL_DEMO = """
import pathlib, sys
from rlplatform import cli
from rlplatform.commands import demo
demo.CONFIG, demo.SEEDS = pathlib.Path(sys.argv[1]), (1, 2)
sys.exit(cli.main(["demo", "--json"]))
"""


def test_the_demo_trains_seeds_on_ray_compares_them_and_publishes_the_best(cli: CommandLine, tmp_path: Path) -> None:
    # In a process of its own, as a Ray that was started leaves its token in the environment.
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DEMO, str(write_config(tmp_path))],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert [(row["seed"], row["state"]) for row in found["runs"]] == [(1, "completed"), (2, "completed")]
    assert found["groups"][0]["seeds"] == 2
    assert found["published"]["reference"] == f"{MODEL}@1"
    assert f"rlplatform evaluate {MODEL}@champion" in done.stderr
    result = cli.json("evaluate", f"{MODEL}@champion", "--episodes", "2")["result"]
    assert result["n_episodes"] == 2
