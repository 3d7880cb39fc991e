"""The command line starts fast, answers --help everywhere, and completes in shells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from rlplatform.cli import app
from tests.e2e.cli import rlplatform

HEAVY = ("torch", "ray", "stable_baselines3", "gymnasium", "numpy", "pydantic", "rich")
MAX_CPU_S = 0.3


def _commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*path, command.name or command.callback.__name__)
    for child in group.registered_groups:
        assert child.typer_instance is not None
        yield from _commands(child.typer_instance, (*path, str(child.name)))


COMMANDS = list(_commands(app))


def test_help_needs_little_cpu_and_no_heavy_module(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from rlplatform.cli import main\n"
        "code = main(['--help'])\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('CPU', usage.ru_utime + usage.ru_stime)\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("CPU ", "LOADED ")))
    assert lines["LOADED"] == "[]"
    assert float(lines["CPU"]) < MAX_CPU_S


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    from rlplatform.cli import main

    assert main([*command, "--help"]) == 0
    assert "Usage: rlplatform" in capsys.readouterr().out


def test_the_installed_script_and_the_module_are_the_same_program(tmp_path: Path) -> None:
    script = subprocess.run(
        [str(Path(sys.executable).with_name("rlplatform")), "--version"], capture_output=True, text=True, check=True
    )
    module = rlplatform("--version", cwd=tmp_path)
    assert script.stdout == module.stdout
    assert module.stdout.startswith("rlplatform 0.")


@pytest.mark.parametrize(("words", "expected"), [("rlplatform ru", "runs"), ("rlplatform runs pr", "prune")])
def test_shells_complete_commands(words: str, expected: str, tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", "from rlplatform.cli import main; raise SystemExit(main())"],
        env={
            **os.environ,
            "_RLPLATFORM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert completed.stdout.split() == [expected]
