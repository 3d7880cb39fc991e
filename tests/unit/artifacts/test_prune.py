from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rlplatform.artifacts.prune import PruneDecision, PrunePolicy, folder_bytes, plan_prune, remove_runs
from rlplatform.artifacts.run_dir import RunDir, list_runs
from rlplatform.artifacts.run_record import RunProgress, RunRecord
from rlplatform.artifacts.run_state import FINISHED, RunState
from rlplatform.errors import RunStateError
from rlplatform.specs.run import RunSpec

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SPEC = RunSpec.model_validate(
    {"algorithm": {"name": "ppo"}, "env": {"id": "CartPole-v1"}, "budget": {"total_timesteps": 4096}}
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return RunDir.create(tmp_path_factory.mktemp("home"), SPEC).read()


def record(
    template: RunRecord, run_id: str, *, state: RunState = "completed", days: float = 10, name: str = "a"
) -> RunRecord:
    created_at = NOW - timedelta(days=days)
    ended_at = created_at if state in FINISHED else None
    changes = {"id": run_id, "state": state, "created_at": created_at, "ended_at": ended_at, "name": name}
    return template.model_copy(update={**changes, "progress": RunProgress(total=1)})


def test_every_rule_keeps_with_its_reason(template: RunRecord) -> None:
    runs = [
        record(template, "old", days=10),
        record(template, "young", days=3.5),
        record(template, "newest", days=3),
        record(template, "fresh-of-b", days=1, name="b"),
        record(template, "older-of-b", days=4, name="b"),
        record(template, "published", days=30),
        record(template, "alive", days=30),
        record(template, "paused", days=30, state="paused"),
        record(template, "killed", days=30, state="running"),
        record(template, "failed", days=30, state="failed"),
    ]
    policy = PrunePolicy(older_than=timedelta(days=4), keep_per_name=1)
    decisions = plan_prune(runs, policy, now=NOW, alive={"alive"}, published={"published"})
    assert {decision.run_id: (decision.remove, decision.reason) for decision in decisions} == {
        "old": (True, "it is completed since 10 days"),
        "young": (False, "it is completed since only 4 days"),
        "newest": (False, "it is one of the 1 newest of a"),
        "fresh-of-b": (False, "it is one of the 1 newest of b"),
        "older-of-b": (True, "it is completed since 4 days"),
        "published": (False, "a model version was published from it"),
        "alive": (False, "it is being trained"),
        "paused": (False, "it is paused"),
        "killed": (False, "it is running"),
        "failed": (True, "it is failed since 30 days"),
    }
    assert [decision.run_id for decision in decisions[:2]] == ["fresh-of-b", "newest"]


@pytest.mark.parametrize("n_kept", [0, 1, 3, 9])
def test_so_many_of_each_name_stay(template: RunRecord, n_kept: int) -> None:
    runs = [record(template, f"{name}{day}", days=day, name=name) for name in "ab" for day in range(1, 6)]
    decisions = plan_prune(runs, PrunePolicy(keep_per_name=n_kept), now=NOW)
    kept = [decision.run_id for decision in decisions if not decision.remove]
    assert sorted(kept) == [f"{name}{day}" for name in "ab" for day in range(1, min(5, n_kept) + 1)]


def test_only_the_named_states_go(template: RunRecord) -> None:
    states: tuple[RunState, ...] = ("completed", "stopped", "failed")
    runs = [record(template, state, state=state) for state in states]
    decisions = plan_prune(runs, PrunePolicy(states=frozenset({"failed"})), now=NOW)
    assert [decision.run_id for decision in decisions if decision.remove] == ["failed"]


def test_what_is_decided_is_removed_and_nothing_else(tmp_path: Path) -> None:
    runs = [RunDir.create(tmp_path, SPEC) for _ in range(3)]
    decisions = [PruneDecision(run.id, remove=run != runs[1], reason="") for run in runs]
    assert set(remove_runs(tmp_path, decisions)) == {runs[0].id, runs[2].id}
    assert [record.id for record in list_runs(tmp_path)] == [runs[1].id]
    assert list((tmp_path / "runs").iterdir()) == [runs[1].path]


def test_a_run_that_is_trained_again_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlplatform.artifacts.run_dir._LOCK_PATIENCE_S", 0.05)
    run = RunDir.create(tmp_path, SPEC)
    with run.lock(), pytest.raises(RunStateError, match="is being trained by process"):
        remove_runs(tmp_path, [PruneDecision(run.id, remove=True, reason="")])
    assert run.read().id == run.id


def test_a_file_linked_into_two_checkpoints_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "chunk.npy").write_bytes(b"x" * 8192)
    alone = folder_bytes(tmp_path)
    (tmp_path / "two.npy").hardlink_to(tmp_path / "one" / "chunk.npy")
    assert folder_bytes(tmp_path) == alone
    assert alone >= 8192
