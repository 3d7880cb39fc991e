"""What the RunManager decides without Ray: a run that a person trains in a process of their own is left to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_state import RunState
from rlplatform.cluster import run_manager
from rlplatform.cluster.run_manager import ManagerOptions, RunManager
from rlplatform.cluster.run_table import Entry
from rlplatform.specs.load import run_spec_from_mapping

SPEC = {"algorithm": {"name": "ppo"}, "env": {"id": "CartPole-v1"}, "budget": {"total_timesteps": 100}}
TAKEN = {"progress": None, "outcome": {"state": "lost", "reason": "trained by process 7", "recorded": False}}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run nobody trains."""
    return RunDir.create(tmp_path / "home", run_spec_from_mapping(SPEC, "test"))


@pytest.fixture
def manager(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunManager:
    """A manager whose loop never turns by itself, and whose actor for `run` found it trained by somebody else."""
    monkeypatch.setattr(run_manager, "ask", lambda _: TAKEN)
    monkeypatch.setattr(run_manager, "configure", lambda *_: None)
    manager = RunManager(str(tmp_path / "home" / "managers" / "journal.json"), ManagerOptions(tick_s=1e6))
    manager.submit([{"run_path": str(run.path), "owner": "driver", "bundles": [{"CPU": 1}]}])
    return manager


def taken(manager: RunManager, run: RunDir) -> Entry:
    """Return the run's entry after its actor was refused; somebody holds the run's lock."""
    run.update(state="running")
    entry = manager._entries[str(run.path)]
    entry.phase = "training"
    manager._advance(entry)
    return entry


@pytest.mark.parametrize("end", ["completed", "stopped", "paused"])
def test_a_run_that_somebody_else_trains_is_left_as_they_leave_it(
    end: RunState, manager: RunManager, run: RunDir
) -> None:
    with run.lock():
        entry = taken(manager, run)
        manager._start_next()
        manager._advance(entry)
        assert (entry.phase, entry.retries, run.read().state, run.read().retries) == ("queued", 0, "running", 0)
        run.update(state=end)
    manager._advance(entry)
    assert manager.runs() == []
    assert run.read().state == end


def test_a_run_that_somebody_else_trained_is_taken_up_when_they_die(manager: RunManager, run: RunDir) -> None:
    with run.lock():
        entry = taken(manager, run)
    manager._advance(entry)
    assert (entry.phase, entry.elsewhere) == ("queued", False)


@pytest.mark.parametrize("how", ["request", "kill"])
def test_ending_a_run_that_somebody_else_trains_only_lets_go_of_it(how: str, manager: RunManager, run: RunDir) -> None:
    arguments: tuple[Any, ...] = ("stop", "Ctrl-C") if how == "request" else ("Ctrl-C twice",)
    with run.lock():
        entry = taken(manager, run)
        getattr(manager, how)([str(run.path)], *arguments)
        manager._advance(entry)
        assert manager.runs() == []
        assert run.read().state == "running"
