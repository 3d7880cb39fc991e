"""The trainable, driven as Ray Tune drives it, in this process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.errors import EnvWorkerDied
from rlplatform.logs import configure
from rlplatform.tune.trainable import SEARCH, RunTrainable
from rlplatform.tune.trial import TrialRuns
from tests.unit.tune.small_search import RATE, small_search


@pytest.fixture(autouse=True)
def _logs_of_a_trainable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlplatform.tune.trainable.configure", lambda *_, **__: configure(None, terminal=False))


class Actor:
    """What Tune does with an actor, without Ray and without Tune's folders."""

    def __init__(self, home: Path) -> None:
        self.search = SearchDir.create(home, small_search())
        self.trainable = RunTrainable.__new__(RunTrainable)

    def take(self, trial_id: str, rate: float) -> None:
        config = {SEARCH: str(self.search.path), RATE: rate}
        fresh = getattr(self.trainable, "_trial_info", None) is None
        self.trainable._trial_info = SimpleNamespace(trial_id=trial_id)
        if fresh:
            self.trainable.setup(config)
        else:
            assert self.trainable.reset_config(config)

    def finish(self) -> dict[str, Any]:
        while not (result := self.trainable.step())["done"]:
            pass
        return result

    def run(self, trial_id: str) -> RunDir:
        return RunDir(self.search.trial_path(trial_id) / "seed_3")


def test_an_actor_trains_one_trial_after_another_as_a_new_one_would(tmp_path: Path) -> None:
    actor = Actor(tmp_path / "one")
    actor.take("0000", 1e-2)
    actor.finish()
    actor.take("0001", 1e-3)
    actor.trainable.step()
    actor.take("0002", 1e-3)
    reused = actor.finish()
    new = Actor(tmp_path / "two")
    new.take("0000", 1e-3)
    assert new.finish() == reused
    assert [actor.run(trial).read().state for trial in ("0000", "0001", "0002")] == ["completed", "paused", "completed"]


def test_a_trial_that_fails_says_why_and_the_actor_takes_the_next(tmp_path: Path) -> None:
    actor = Actor(tmp_path)
    actor.take("0000", -1.0)
    failed = actor.trainable.step()
    assert failed["done"]
    assert failed["failed"]
    assert "algorithm.learning_rate" in failed["reason"]
    actor.take("0001", 1e-3)
    assert actor.finish()["reason"] == "the budget's steps are done"


def test_a_lost_environment_worker_is_for_tune_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor(tmp_path)
    actor.take("0000", 1e-3)
    actor.trainable.step()

    def lose(_: TrialRuns) -> None:
        raise EnvWorkerDied("worker 1 is gone")

    with monkeypatch.context() as broken:
        broken.setattr(TrialRuns, "advance", lose)
        with pytest.raises(EnvWorkerDied, match="worker 1 is gone"):
            actor.trainable.step()
    actor.take("0000", 1e-3)
    assert actor.finish()["training_iteration"] == 4


def test_a_trial_takes_another_one_over_and_refuses_what_it_cannot(tmp_path: Path) -> None:
    actor = Actor(tmp_path)
    actor.take("0000", 1e-2)
    actor.trainable.step()
    saved = tmp_path / "saved"
    saved.mkdir()
    actor.trainable.save_checkpoint(str(saved))
    actor.take("0001", 1e-3)
    actor.trainable.load_checkpoint(str(saved))
    assert actor.trainable.step()["generation"] == 1
    actor.take("0002", -1.0)
    actor.trainable.load_checkpoint(str(saved))
    refused = actor.trainable.step()
    assert refused["failed"]
    assert "algorithm.learning_rate" in refused["reason"]
    actor.trainable.cleanup()


def test_a_node_without_the_search_s_folder_is_told_so(tmp_path: Path) -> None:
    actor = Actor(tmp_path)
    actor.search.spec_path.unlink()
    actor.take("0000", 1e-3)
    assert "storage that all nodes share" in actor.trainable.step()["reason"]
