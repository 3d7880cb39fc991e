"""The RunActor as a plain object: what it answers, and what becomes of each way to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlplatform.cluster import run_actor
from rlplatform.cluster.run_actor import RunActor
from rlplatform.errors import EnvError, EnvWorkerDied, RunStateError, TrainingFailed
from rlplatform.specs.run import ResourceSpec
from rlplatform.train.trainer import RunResult, Trainer


class FakeTrainer:
    """Ends at once, as it is told."""

    def __init__(self, end: Exception | RunResult) -> None:
        self.end = end
        self.requests: list[str] = []
        self.spec = type("Spec", (), {"resources": ResourceSpec()})

    def request_stop(self, action: str) -> None:
        self.requests.append(action)

    def fit(self) -> RunResult:
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


def actor(monkeypatch: pytest.MonkeyPatch, folder: Path, end: Exception | RunResult) -> tuple[RunActor, FakeTrainer]:
    folder.joinpath("run.json").write_text("{}")
    trainer = FakeTrainer(end)
    monkeypatch.setattr(Trainer, "open", lambda *_: trainer)
    monkeypatch.setattr(run_actor, "configure", lambda *_: None)
    return RunActor(str(folder)), trainer


def outcome(one: RunActor) -> dict[str, Any]:
    one.run()
    return dict(one.status()["outcome"])


@pytest.mark.parametrize(
    ("error", "state", "recorded"),
    [
        (EnvWorkerDied("a worker died"), "lost", False),
        (RunStateError("another process trains it"), "lost", False),
        (TrainingFailed("it failed"), "failed", True),
        (EnvError("no such id"), "failed", False),
        (OSError("the disk is full"), "failed", False),
    ],
)
def test_every_end_is_told(
    error: Exception, state: str, recorded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, _ = actor(monkeypatch, tmp_path, error)
    got = outcome(one)
    assert (got["state"], got["recorded"]) == (state, recorded)
    assert str(error) in got["reason"]


def test_a_result_is_told_and_running_again_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, trainer = actor(monkeypatch, tmp_path, RunResult("r", "completed", 10, "done"))
    assert outcome(one) == {"state": "completed", "reason": "done", "recorded": True}
    trainer.end = OSError("a second run")
    assert outcome(one)["state"] == "completed"


def test_a_request_before_training_reaches_the_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, trainer = actor(monkeypatch, tmp_path, RunResult("r", "paused", 0, "asked to pause"))
    one.request("pause")
    assert outcome(one)["state"] == "paused"
    assert trainer.requests == ["pause"]


def test_a_run_that_this_node_cannot_see_is_told_in_words(tmp_path: Path) -> None:
    got = outcome(RunActor(str(tmp_path / "elsewhere")))
    assert got["state"] == "failed"
    assert "RLPLATFORM_HOME to a folder on storage that all nodes share" in got["reason"]
