"""The checks of `rlplatform doctor` that need neither torch nor Ray."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from rlplatform.report import health

Usage = namedtuple("Usage", ("total", "used", "free"))


def test_the_packages_of_this_environment_satisfy_us() -> None:
    assert health.check_packages().status == "ok"


def test_a_missing_and_an_old_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "requires", lambda _: ["no-such-package>=1", "numpy>=1000", "other; extra == 'dev'"])
    check = health.check_packages()
    assert check.status == "failed"
    assert "no-such-package is missing" in check.found
    assert ">=1000" in check.found
    assert "other" not in check.found


def test_a_home_that_can_be_written_is_left_empty(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    assert health.check_home(home).status == "ok"
    assert list(home.iterdir()) == []


def test_a_home_that_is_a_file_fails_and_says_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    check = health.check_home(home)
    assert check.status == "failed"
    assert "RLPLATFORM_HOME" in check.advice


@pytest.mark.parametrize(("free", "status"), [(10**9, "warning"), (10**10, "ok")])
def test_little_room_is_a_warning(free: int, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))
    assert health.check_disk(tmp_path / "not" / "yet").status == status


def test_a_missing_optional_package_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "OPTIONAL", {"no_such_module": ("something", "pip install it")})
    (check,) = health.check_optional()
    assert (check.status, check.advice) == ("ok", "If you need it: `pip install it`.")
