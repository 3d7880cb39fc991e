from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlplatform.artifacts.provenance import command_line, git_revision, machine, package_versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


look_up = git_revision.__wrapped__
"""Without the memory that a process has."""


def test_a_revision_is_the_commit_and_whether_tracked_files_differ(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert look_up(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "untracked").touch()
    clean = look_up(tmp_path)
    assert clean is not None
    assert (clean.revision, clean.dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)
    assert Path(clean.root).samefile(tmp_path)
    (tmp_path / "a.py").write_text("22")
    changed = look_up(tmp_path)
    assert changed is not None
    assert changed.dirty


def test_a_folder_without_git_has_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert look_up(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert look_up(tmp_path) is None


def test_versions_are_those_of_the_installed_packages() -> None:
    versions = package_versions()
    assert {"numpy", "pydantic", "torch", "stable_baselines3"} <= {name.replace("-", "_") for name in versions}
    assert list(versions) == sorted(versions, key=str.lower)


def test_the_machine_is_described_without_importing_torch() -> None:
    code = (
        "import sys; from rlplatform.artifacts.provenance import machine; m = machine();"
        "assert m.torch is None and 'torch' not in sys.modules; print(m.host)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    here = machine()
    assert done.stdout.strip() == here.host
    assert (here.pid, here.cpu_count) == (os.getpid(), os.cpu_count())


def test_the_command_can_be_pasted_into_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rlplatform", "train", "my config.yaml", "--seeds", "1,2"])
    assert command_line() == "rlplatform train 'my config.yaml' --seeds 1,2"
