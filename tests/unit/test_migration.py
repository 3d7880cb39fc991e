"""docs/migration.md names what is there: every import and call on our side exists, and none on theirs is left out."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from rlplatform.client import AsyncClient, Client

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
IMPORTS = re.compile(r"`(from [\w.]+ import [\w, ]+)`")
OURS = sorted({line for row in ROWS for line in IMPORTS.findall(row[1])})
THEIRS = (
    "from src.api.config import create_api_config, setup_api_config",
    "from src.agents import PPOAgent, A2CAgent",
    "from src.utils import set_seed",
    "RLConfig",
    "from grpo import GRPO",
    "python -m src.api.app",
    "python -m src.api.app --host 0.0.0.0 --port 8000 --debug",
    "python -m src.api.app --debug --reload",
    "python -m src.api.app --workers 4 --host 0.0.0.0 --port 8000",
    "uvicorn src.api.app:create_app",
    "gunicorn src.api.app:create_app -w 4",
    "python -m src.training.trainer --config configs/training_schema.yaml",
    "python test_api.py",
    "python run_api.py",
)
"""Lines of the documents that name the originals' own modules and scripts."""


@pytest.mark.parametrize("line", OURS)
def test_what_replaces_an_import_can_be_imported(line: str) -> None:
    (node,) = ast.parse(line).body
    assert isinstance(node, ast.ImportFrom)
    module = importlib.import_module(str(node.module))
    assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_every_call_of_the_old_client_has_one_of_ours() -> None:
    calls = re.findall(r"`Client\.(\w+)\(", " ".join(row[1] for row in ROWS))
    assert len(calls) == 9
    assert [name for name in calls if not callable(getattr(Client("http://x"), name))] == []
    assert [name for name in calls if not hasattr(AsyncClient, name)] == []


def test_every_line_that_names_the_originals_modules_is_there() -> None:
    there = " ".join(row[0] for row in ROWS) + PAGE
    assert [line for line in THEIRS if line not in there] == []
