"""Settings come from variables, then .env, then defaults; the example file shows every one."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values

from rlplatform.errors import SpecError
from rlplatform.names import ENV_PREFIX, HOME_ENV_VAR
from rlplatform.specs.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[3] / ".env.example"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and no variables."""
    monkeypatch.delenv(HOME_ENV_VAR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_default_home_is_results_where_one_stands(folder: Path) -> None:
    assert load_settings().home == folder / "results"


def test_a_variable_wins_over_the_env_file_and_that_over_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("RLPLATFORM_HOME=/from/file\nRLPLATFORM_LOG_LEVEL=error\n", encoding="utf-8")
    assert load_settings() == Settings(home=Path("/from/file"), log_level="ERROR")
    monkeypatch.setenv("RLPLATFORM_LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"


def test_home_is_absolute_and_knows_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_ENV_VAR, "~/elsewhere")
    assert load_settings().home == Path.home() / "elsewhere"


def test_an_empty_variable_is_as_good_as_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_ENV_VAR, "")
    assert load_settings().home == folder / "results"


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPLATFORM_LOG_LEVEL", "loud")
    with pytest.raises(SpecError, match=r"^`RLPLATFORM_LOG_LEVEL` must be 'DEBUG', .*, got 'LOUD'\. It is set in"):
        load_settings()


def test_the_example_file_holds_every_setting_with_its_default_and_its_documentation(folder: Path) -> None:
    ours = {key: value for key, value in dotenv_values(EXAMPLE).items() if key.startswith(ENV_PREFIX)}
    values = {key.removeprefix(ENV_PREFIX).lower(): value for key, value in ours.items()}
    assert values.keys() == Settings.model_fields.keys()
    assert Settings.model_validate(values) == load_settings()
    text = EXAMPLE.read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert (field.description or "").rstrip(".") in text, name


@pytest.mark.parametrize("value", ["results", "/mnt/backup", "file:///mnt/backup", "http://bucket/x", "s3://"])
def test_runs_are_copied_to_object_stores_only(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPLATFORM_REMOTE", value)
    with pytest.raises(
        SpecError, match=r"^`RLPLATFORM_REMOTE` must be the address of a folder in an object store \(s3"
    ):
        load_settings()


def test_a_password_in_an_address_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPLATFORM_REMOTE", "s3://AKIA:hidden@bucket/x")
    with pytest.raises(SpecError, match=r"^`RLPLATFORM_REMOTE` must not hold a password") as caught:
        load_settings()
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
