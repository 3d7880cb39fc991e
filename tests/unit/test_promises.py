"""docs/promises.md names a test or a capability for every promise, and what it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperGroup

from rlplatform.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
INTRODUCTION, _, TABLES = PAGE.partition("## System A: the training system")
CAPABILITIES = set(re.findall(r"^\| ([^|]+?) \|", INTRODUCTION, re.MULTILINE)) - {"Capability"}
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLES.splitlines() if line.startswith("| ")]
PROMISES = [row for row in ROWS if row[0] != "Promised"]


def test_every_promise_is_kept_by_a_test_or_waits_for_a_capability() -> None:
    assert len(PROMISES) > 100
    for promised, ours, held_by in PROMISES:
        tests = re.findall(r"`tests/[\w/]+\.py::\w+`", held_by)
        waits = set(re.findall(r"\*\*waits for\*\* (.+)", held_by))
        assert tests or waits, promised
        assert ours or waits, promised
        assert waits <= CAPABILITIES, promised


def test_every_named_test_exists() -> None:
    named: dict[str, set[str]] = {}
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE):
        named.setdefault(path, set()).add(name)
    for path, names in named.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert names - {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} == set(), path


def test_every_named_path_exists() -> None:
    paths = re.findall(r"`((?:rlplatform|configs|tests)/[\w/.]+)`", " ".join(row[1] for row in PROMISES))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_named_command_exists() -> None:
    program = typer.main.get_command(app)
    for words in re.findall(r"`rlplatform ([a-z][^`]*)`", " ".join(row[1] for row in PROMISES)):
        command: Any = program
        for word in words.split():
            if not isinstance(command, TyperGroup):
                break
            assert word in command.commands, f"there is no `rlplatform {words}`"
            command = command.commands[word]
