"""Running commands in this process, which saves each of them the import of torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlplatform.cli import main
from rlplatform.logs import ROOT_LOGGER


class CommandLine:
    """Types commands; none of them may show a traceback."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""
        """What the last command wrote to stderr."""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that must end with `code`, and return its stdout."""
        self._capsys.readouterr()
        found = main(arguments)
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert found == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json, and return what it printed."""
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """A command line in the test's folder."""
    monkeypatch.chdir(tmp_path)
    yield CommandLine(capsys)
    # The commands' log handlers hold this test's stderr and files.
    root = logging.getLogger(ROOT_LOGGER)
    for handler in tuple(root.handlers):
        root.removeHandler(handler)
        handler.close()
