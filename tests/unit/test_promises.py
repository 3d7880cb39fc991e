"""docs/promises.md names a test or a capability for every promise, and what it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from rlplatform.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
TABLES = PAGE[PAGE.index("## System A: the training system"):]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLES.splitlines() if line.startswith("| ")]
PROMISES = [row for row in ROWS if row[0] != "Promised"]
CAPABILITIES = set(re.findall(r"^\| ([^|]+?) \|", PAGE[:PAGE.index("## System A")], re.MULTILINE)) - {"Capability"}
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_named_test_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_a_promise_is_kept_by_a_test_or_waits_for_a_capability(row: list[str]) -> None:
    assert len(row) == 3
    promised, ours, held_by = row
    assert promised
    tests = re.findall(r"`tests/[\w/]+\.py::\w+`", held_by)
    waits = re.findall(r"\*\*waits for\*\* (.+)", held_by)
    assert tests or waits
    assert ours or waits
    assert set(waits) <= CAPABILITIES


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_a_named_path_exists(row: list[str]) -> None:
    paths = re.findall(r"`((?:rlplatform|configs|tests)/[\w/.]+)`", row[1])
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_a_named_command_exists(row: list[str]) -> None:
    for words in re.findall(r"`rlplatform ([a-z][^`]*)`", row[1]):
        command: Any = typer.main.get_command(app)
        for word in words.split():
            if not isinstance(command, TyperGroup):
                break
            assert word in command.commands, f"there is no `rlplatform {words}`"
            command = command.commands[word]
