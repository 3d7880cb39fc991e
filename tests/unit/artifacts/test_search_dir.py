"""The folder of a search: found by its id, read while it is written, locked by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlplatform.artifacts.search_dir import SearchDir, list_searches
from rlplatform.artifacts.search_record import TrialRecord, best_trial
from rlplatform.errors import RunNotFound, RunStateError, StorageError
from rlplatform.specs.search import ObjectiveSpec
from tests.unit.tune.small_search import small_search


def record(number: int, **fields: object) -> TrialRecord:
    return TrialRecord.model_validate(
        {"trial_id": f"{number:04d}", "number": number, "point": {"a": 1.5}, "seeds": (0,), **fields}
    )


def test_a_search_is_found_by_its_id_the_beginning_of_it_and_its_path(tmp_path: Path) -> None:
    search = SearchDir.create(tmp_path, small_search(name="first"))
    assert search.spec() == small_search(name="first")
    for wanted in (search.id, "first", search.path):
        assert SearchDir.open(tmp_path, wanted).path == search.path
    assert search.home == tmp_path
    assert [found.id for found in list_searches(tmp_path)] == [search.id]
    SearchDir.create(tmp_path, small_search(name="first"))
    with pytest.raises(RunNotFound, match="2 searches begin with 'first'"):
        SearchDir.open(tmp_path, "first")
    with pytest.raises(RunNotFound, match="There is no search 'second'"):
        SearchDir.open(tmp_path, "second")
    with pytest.raises(RunNotFound, match="It holds none"):
        SearchDir.open(tmp_path / "elsewhere", "first")


def test_what_was_asked_for_does_not_depend_on_who_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = SearchDir.create(tmp_path, small_search())
    monkeypatch.setenv("RLPLATFORM_SET__ENV__N_ENVS", "7")
    assert search.spec() == small_search()


def test_the_last_word_about_a_trial_holds(tmp_path: Path) -> None:
    search = SearchDir.create(tmp_path, small_search())
    assert search.trials() == []
    search.append_trials([record(1), record(0)])
    search.append_trials([record(1, state="running", step=64)])
    assert [(trial.number, trial.state) for trial in search.trials()] == [(0, "queued"), (1, "running")]
    with open(search.trials_path, "a") as file:
        file.write('{"trial_id": "0001", "num')  # a writer was killed
    assert search.trials()[1].step == 64
    search.rewrite_trials(search.trials())
    assert len(search.trials_path.read_text().splitlines()) == 2


def test_a_value_that_is_no_number_is_none(tmp_path: Path) -> None:
    search = SearchDir.create(tmp_path, small_search())
    search.append_trials([record(0, value=float("nan"))])
    assert search.trials()[0].value is None


def test_one_process_drives_a_search(tmp_path: Path) -> None:
    search = SearchDir.create(tmp_path, small_search())
    assert not search.is_alive()
    left = search.path / ".state.pkl.0a1b2c3d.tmp"
    left.touch()
    with search.lock():
        assert not left.exists()
        assert search.is_alive()
        with pytest.raises(RunStateError, match="is being run by process"), SearchDir(search.path).lock():
            pass


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    search = SearchDir.create(tmp_path, small_search())
    assert search.update(state="running").state == search.record.state == "running"
    (search.path / "search.json").write_text("{}")
    with pytest.raises(StorageError, match=r"search\.json is damaged or of another version"):
        search.read()
    assert list_searches(tmp_path) == []
    search.trials_path.write_text('{"trial_id": "0000"}\n')
    with pytest.raises(StorageError, match=r"trials\.jsonl is of another version"):
        search.trials()


def test_the_best_trial_is_the_one_that_the_objective_says() -> None:
    trials = [
        record(0, value=5.0, best_value=9.0, step=64),
        record(1, value=7.0, best_value=8.0, step=64),
        record(2, value=7.0, best_value=9.0, step=32),
        record(3, value=99.0, best_value=99.0, state="failed"),
        record(4),
    ]

    def best(**objective: str) -> int:
        found = best_trial(trials, ObjectiveSpec.model_validate(objective))
        assert found is not None
        return found.number

    assert (best(), best(of="last"), best(mode="min"), best(mode="min", of="last")) == (2, 2, 1, 0)
    assert best_trial([record(0)], ObjectiveSpec()) is None
