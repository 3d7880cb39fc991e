"""docs/serving.md and .env.example show every setting of the service, with its default and its documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from pydantic.fields import FieldInfo

from rlplatform.serve.settings import PREFIX, ServeSettings, load_serve_settings

ROOT = Path(__file__).parents[3]
FIELDS = ServeSettings.model_fields


def shown(field: FieldInfo) -> str:
    """Return a default as a variable holds it."""
    default: Any = field.default
    if default is None:
        return ""
    if isinstance(default, bool | dict):
        return json.dumps(default)
    return ",".join(default) if isinstance(default, tuple) else str(default)


def described(field: FieldInfo) -> str:
    assert field.description is not None
    return re.sub(r"\bNone:", "Empty:", " ".join(field.description.split()))


def row(name: str, field: FieldInfo) -> str:
    """Return a setting's row in the table."""
    default = f"`{shown(field)}`" if shown(field) else ""
    return f"| `{PREFIX}{name.upper()}` | {default} | {described(field)} |"


def test_the_page_lists_every_setting_as_it_is() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    found = [line for line in page.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert found == [row(name, field) for name, field in FIELDS.items()]


def test_the_example_file_holds_every_setting_with_its_default_and_its_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    values = {name: value for name, value in dotenv_values(ROOT / ".env.example").items() if name.startswith(PREFIX)}
    assert values == {f"{PREFIX}{name.upper()}": shown(field) for name, field in FIELDS.items()}
    for field in FIELDS.values():
        assert f"# {described(field)}\n" in text
    monkeypatch.chdir(tmp_path)
    defaults = load_serve_settings()
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    assert load_serve_settings() == defaults
