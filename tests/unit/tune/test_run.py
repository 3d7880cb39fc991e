"""What is decided before a search starts, and what it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.cluster.resources import Booking
from rlplatform.cluster.runner import RayOptions
from rlplatform.errors import CheckpointError, ResourceError, SpecError, StorageError
from rlplatform.tune import run
from rlplatform.tune.ledger import Ledger
from rlplatform.tune.run import run_search
from rlplatform.tune.state import read_state
from tests.unit.tune.small_search import RATE, small_search

GIB = float(2**30)
NODES = ({"CPU": 4.0, "memory": 8 * GIB}, {"CPU": 2.0, "memory": 8 * GIB})


def concurrent(monkeypatch: pytest.MonkeyPatch, bundle: dict[str, float], budget: Any, **options: Any) -> int:
    monkeypatch.setattr(run, "cluster_nodes", lambda: NODES)
    return run._concurrent(small_search(budget=budget), Booking((bundle,)), RayOptions(**options))


@pytest.mark.parametrize(
    ("bundle", "budget", "options", "expected"),
    [
        ({"CPU": 1.0}, {"trials": 20}, {}, 6),
        ({"CPU": 2.0}, {"trials": 20}, {}, 3),
        ({"CPU": 1.0}, {"trials": 4}, {}, 4),
        ({"CPU": 1.0}, {"trials": 20, "concurrent": 2}, {}, 2),
        ({"CPU": 1.0}, {"trials": 20, "concurrent": 2}, {"limit": 3}, 3),
        ({"CPU": 1.0}, {"trials": 20, "concurrent": 10}, {}, 6),
        ({"CPU": 1.0}, {"trials": 20, "concurrent": 10}, {"wait_for_resources": True}, 10),
        ({"CPU": 0.5, "memory": 4 * GIB}, {"trials": 20}, {}, 4),
    ],
)
def test_as_many_trials_train_at_once_as_are_asked_for_and_fit(
    monkeypatch: pytest.MonkeyPatch, bundle: dict[str, float], budget: Any, options: Any, expected: int
) -> None:
    assert concurrent(monkeypatch, bundle, budget, **options) == expected


def test_more_than_there_is_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match=r"A trial asks for 8 CPUs and 0 GPUs.*the cluster has 6 CPUs"):
        concurrent(monkeypatch, {"CPU": 8.0}, {"trials": 2})
    with pytest.raises(ResourceError, match=r"5 trials at once .* the memory of the cluster holds 4 of them"):
        concurrent(monkeypatch, {"CPU": 1.0, "memory": 4 * GIB}, {"trials": 20, "concurrent": 5})


def test_a_search_that_cannot_be_is_refused_before_ray_starts(tmp_path: Path) -> None:
    spec = small_search(
        scheduler={"name": "pbt", "every_steps": 64}, space={"env.n_envs": {"type": "choice", "values": [1, 2]}}
    )
    with pytest.raises(SpecError, match=r"env\.n_envs"):
        run_search(spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_died_before_it_wrote_anything_begins_anew(tmp_path: Path) -> None:
    search = SearchDir.create(tmp_path, small_search())
    assert read_state(search, search.spec()) is None
    search.state_path.write_bytes(b"not a pickle")
    with pytest.raises(CheckpointError, match=r"state\.pkl cannot be read by this version"):
        read_state(search, search.spec())
    search.state_path.unlink()
    search.state_path.mkdir()  # there, and not readable: to begin anew would train everything twice
    with pytest.raises(StorageError, match=r"state\.pkl"):
        read_state(search, search.spec())


def test_the_ledger_keeps_what_changed_until_it_is_taken() -> None:
    ledger = Ledger((0, 1))
    assert ledger.add(0, {RATE: 1e-3}) == "0000"
    assert [record.run_dirs for record in ledger.take_changed()] == [("trials/0000/seed_0", "trials/0000/seed_1")]
    assert not ledger.is_changed
    ledger.begin("0000")
    ledger.note("0000", trained_steps=64)
    ledger.end("0000", "stopped", "a test")
    (changed,) = ledger.take_changed()
    assert (changed.state, changed.reason, changed.trained_steps) == ("stopped", "a test", 64)
    assert changed.started is not None
    assert changed.ended is not None
    again = Ledger((0, 1), ledger.records())
    assert (len(again), again["0000"], again.trained_steps) == (1, changed, 64)
