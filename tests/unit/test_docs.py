"""What the documentation says to type exists: commands, options, targets, files, links, specs."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from rlplatform.cli import app
from rlplatform.specs.load import run_spec_from_mapping
from rlplatform.specs.yaml_text import read_yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "promises.md"  # It names what other systems had; tests/unit/test_promises.py checks it.
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`((?:rlplatform|make|python) [^`]+)`")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def commands(page: Path) -> list[list[str]]:
    """Return the words of every command that a page shows, in blocks and in the text."""
    lines = [
        line.removeprefix("$ ") for text in blocks(page, "", "sh", "bash", "console") for line in text.splitlines()
    ]
    lines += INLINE.findall(page.read_text(encoding="utf-8"))
    starts = ("rlplatform", "make", "python", ".venv/bin/rlplatform", ".venv/bin/python", "ray")
    split = [shlex.split(line, comments=True) for line in lines if line.partition(" ")[0] in starts]
    return [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in split]


def without_code(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def check_options(words: list[str]) -> None:
    """Follow the words of a command through the tree of commands; after `--` comes a command of another program."""
    command: Any = typer.main.get_command(app)
    known = {option for parameter in command.params for option in parameter.opts}
    for word in itertools.takewhile(lambda word: word != "--", words):
        if word.startswith("--"):
            assert word.partition("=")[0] in known | {"--help", "--debug"}, f"`{command.name}` has no {word}"
        elif isinstance(command, TyperGroup) and not word.isupper():  # COMMAND stands for any
            assert word in command.commands, f"there is no command {word!r} in `{command.name}`"
            command = command.commands[word]
            known = {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_command_of_a_page_exists(page: Path) -> None:
    for words in commands(page):
        match words:
            case ["make", *targets]:
                assert {word for word in targets if "=" not in word} <= TARGETS, words
            case ["python", "-m", "rlplatform", *rest] | ["rlplatform", *rest]:
                check_options(rest)
            case ["python", "-m", module, *_] if module.startswith("benchmarks"):
                assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), words
            case ["ray", "job", "submit", *rest]:
                script = rest[rest.index("python") + 1]
                assert (ROOT / script).is_file(), words
            case ["python", script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file(), words
        for word in words:
            if word.startswith(("configs/", "examples/", "./examples/")):
                assert (ROOT / word).exists(), f"{short(page)} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(without_code(page)):
        if not link.startswith(("https://", "http://", "#", "mailto:")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{short(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_whole_spec_of_a_page_loads(page: Path) -> None:
    for text in blocks(page, "yaml"):
        data = read_yaml(text, short(page)).data
        if isinstance(data, dict) and {"algorithm", "env", "budget"} <= data.keys():
            run_spec_from_mapping(data, short(page))


def test_the_readme_begins_with_what_to_type() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert any("make demo" in line for line in first)
    assert any("TORCH_INDEX=" in line for line in first)


def test_the_changelog_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_name_that_a_page_imports_from_here_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rlplatform"):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
