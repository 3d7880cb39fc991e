"""What the store of experiments must do over every database. Subclass it and give the fixture `database`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from rlplatform.artifacts.run_state import RunState
from rlplatform.errors import (
    Conflict,
    ExperimentNotFound,
    LimitReached,
    RlPlatformError,
    SpecError,
    UnknownNameError,
)
from rlplatform.store.capacity import Capacity
from rlplatform.store.database import Database
from rlplatform.store.experiments import Experiment, ExperimentStore
from rlplatform.store.tables import EXPERIMENTS

HOSTILE = ["' OR '1'='1", "'; DROP TABLE experiments; --", 'x" OR 1=1 --', "%", "_", "\\", "\\' OR 1=1 --", "${jndi:x}"]


def at_once(n: int, do: Callable[[int], object]) -> list[BaseException | None]:
    """Do something in several threads at once and return how each ended."""
    ends: list[BaseException | None] = [None] * n
    ready = threading.Barrier(n)

    def work(index: int) -> None:
        ready.wait()
        try:
            do(index)
        except RlPlatformError as error:
            ends[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def add(store: ExperimentStore, **fields: Any) -> Experiment:
    given = {"name": "cartpole", "algorithm": "ppo", "env_id": "CartPole-v1", "spec": {"seed": 0}, "seeds": [0]}
    return store.create(**{**given, **fields})


class ExperimentContract:
    """The behaviour of `ExperimentStore`."""

    @pytest.fixture
    def store(self, database: Database) -> ExperimentStore:
        return ExperimentStore(database)

    def test_what_is_created_is_read_back(self, store: ExperimentStore) -> None:
        spec = {"algorithm": {"name": "ppo", "learning_rate": 3e-4}, "wrappers": [], "note": "Ω \U0001f600 \0"}
        made = add(
            store,
            name="Опыт № 1",
            spec=spec,
            seeds=[3, 2**32 - 1],
            description="d",
            hypothesis="h",
            owner="k1",
            kind="grpo",
            legacy={"environment": "LunarLander-v2"},
        )
        assert store.get(made.id) == made
        assert (made.spec, made.seeds, made.kind) == (spec, (3, 2**32 - 1), "grpo")
        assert (made.status, made.run_ids, made.reason) == ("created", (), None)
        assert made.created_at == made.updated_at
        assert datetime.now(UTC) - made.created_at < timedelta(minutes=5)
        assert made.started_at is None

    def test_an_unknown_id_is_said(self, store: ExperimentStore) -> None:
        for lost in (
            lambda: store.get("nope"),
            lambda: store.update("nope", reason="x"),
            lambda: store.delete("nope"),
            lambda: store.runs("nope"),
            lambda: store.add_run("nope", "r", Path("r"), 0),
        ):
            with pytest.raises(ExperimentNotFound, match="There is no experiment 'nope'"):
                lost()

    def test_an_id_is_taken_once(self, store: ExperimentStore) -> None:
        add(store, id="mine")
        with pytest.raises(Conflict, match="There is an experiment 'mine' already"):
            add(store, id="mine")

    def test_filters_narrow_together(self, store: ExperimentStore) -> None:
        add(store, name="Alpha One", algorithm="ppo", owner="a")
        add(store, name="alpha two", algorithm="dqn", owner="a", kind="grpo")
        add(store, name="ЁЛКА", env_id="Pendulum-v1", owner="b")

        def found(**filters: Any) -> list[str]:
            return [experiment.name for experiment in store.list(order="name", **filters).items]

        assert found() == ["Alpha One", "alpha two", "ЁЛКА"]
        assert found(name="ALPHA") == ["Alpha One", "alpha two"]
        assert found(name="ёл") == ["ЁЛКА"]
        assert found(algorithm="DQN") == ["alpha two"]
        assert found(name="alpha", algorithm="ppo") == ["Alpha One"]
        assert found(env="Pendulum-v1") == ["ЁЛКА"]
        assert found(owner="a", kind="experiment") == ["Alpha One"]
        assert found(status="created", owner="b") == ["ЁЛКА"]
        assert found(status=["running", "paused"]) == []
        assert found(status=[]) == []

    def test_pages_cover_the_list_without_gaps_or_repeats(self, store: ExperimentStore) -> None:
        ids = [add(store, name=f"n{index % 3}").id for index in range(7)]
        pages = [store.list(offset=offset, limit=3, order="created_at") for offset in (0, 3, 6, 9)]
        assert [experiment.id for page in pages for experiment in page.items] == ids
        assert [(len(page.items), page.total) for page in pages] == [(3, 7), (3, 7), (1, 7), (0, 7)]
        for order in ("name", "-name", "status", "-updated_at"):
            seen = [
                one.id for offset in range(0, 7, 2) for one in store.list(offset=offset, limit=2, order=order).items
            ]
            assert sorted(seen) == sorted(ids)
        newest = store.list(limit=1).items[0]
        assert newest.id == ids[-1]

    @pytest.mark.parametrize(
        ("window", "message"), [((-1, 10), "offset"), ((2**40, 10), "offset"), ((0, 0), "limit"), ((0, 1001), "limit")]
    )
    def test_a_window_out_of_range_is_refused(
        self, store: ExperimentStore, window: tuple[int, int], message: str
    ) -> None:
        with pytest.raises(SpecError, match=f"`{message}` must be in"):
            store.list(offset=window[0], limit=window[1])

    def test_an_unknown_order_is_refused(self, store: ExperimentStore) -> None:
        with pytest.raises(UnknownNameError, match="Unknown order 'id; DROP TABLE experiments'"):
            store.list(order="id; DROP TABLE experiments")

    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_what_looks_like_sql_is_text(self, store: ExperimentStore, hostile: str) -> None:
        add(store, name="plain")
        mine = add(store, name=hostile, owner=hostile, description=hostile, env_id=hostile, legacy={hostile: hostile})
        for page in (store.list(name=hostile), store.list(owner=hostile), store.list(env=hostile)):
            assert [found.id for found in page.items] == [mine.id]
        assert store.list(algorithm=hostile).total == 0
        assert store.get(mine.id).description == hostile
        with pytest.raises(ExperimentNotFound, match="There is no experiment"):
            store.get(hostile)

    @pytest.mark.parametrize("text", ["a\0b", "\ud800"])
    def test_text_that_a_database_cannot_keep_is_refused(self, store: ExperimentStore, text: str) -> None:
        for use in (
            lambda: add(store, name=text),
            lambda: store.list(name=text),
            lambda: store.get(text),
            lambda: store.list(owner=text),
        ):
            with pytest.raises(SpecError, match="Text must be Unicode without null characters"):
                use()
        assert store.list().total == 0

    def test_a_number_that_is_not_finite_is_refused(self, store: ExperimentStore) -> None:
        with pytest.raises(SpecError, match="Numbers must be finite"):
            add(store, legacy={"reward": float("nan")})
        assert store.list().total == 0

    def test_a_change_needs_the_state_expected(self, store: ExperimentStore) -> None:
        made = add(store)
        running = store.update(made.id, expected_status="created", status="running", reason="started")
        assert (running.status, running.reason) == ("running", "started")
        assert running.updated_at > made.updated_at
        with pytest.raises(Conflict, match="must be created or paused for this, got running"):
            store.update(made.id, expected_status={"paused", "created"}, spec={"changed": True})
        assert store.get(made.id) == running

    def test_times_follow_the_status(self, store: ExperimentStore) -> None:
        id = add(store).id
        assert store.update(id, status="queued").started_at is None
        started = store.update(id, status="running").started_at
        assert started is not None
        paused = store.update(id, status="paused")
        assert (paused.started_at, paused.ended_at) == (started, None)
        stopped = store.update(id, status="stopped", reason="asked to")
        assert stopped.ended_at is not None
        assert store.update(id, reason="still").ended_at == stopped.ended_at
        assert store.update(id, status="queued").ended_at is None
        assert store.update(id, status="running").started_at == started

    def test_every_field_can_change(self, store: ExperimentStore) -> None:
        id = add(store).id
        fields: dict[str, Any] = {
            "name": "Other",
            "algorithm": "a2c",
            "env_id": "Acrobot-v1",
            "spec": {"x": [1, None, 2.5]},
            "seeds": (4, 5),
            "description": "d",
            "hypothesis": "h",
            "legacy": {"a": "b"},
        }
        changed = store.update(id, **fields)
        assert {name: getattr(changed, name) for name in fields} == fields
        assert store.list(name="other").total == 1

    def test_a_change_that_raises_changes_nothing(self, store: ExperimentStore) -> None:
        made = add(store)

        def refuse(_: Experiment) -> Any:
            raise SpecError("not now")

        with pytest.raises(SpecError, match="not now"):
            store.edit(made.id, refuse)
        assert store.get(made.id) == made

    def test_of_starts_at_once_one_wins(self, store: ExperimentStore) -> None:
        id = add(store).id
        ends = at_once(6, lambda _: store.update(id, expected_status="created", status="queued"))
        assert sorted(type(end).__name__ for end in ends) == ["Conflict"] * 5 + ["NoneType"]

    def test_edits_at_once_are_not_lost(self, store: ExperimentStore) -> None:
        id = add(store, legacy={"n": 0}).id
        ends = at_once(5, lambda _: store.edit(id, lambda old: {"legacy": {"n": old.legacy["n"] + 1}}))
        assert ends == [None] * 5
        assert store.get(id).legacy == {"n": 5}

    def test_starts_at_once_do_not_exceed_a_limit(self, store: ExperimentStore) -> None:
        ids = [add(store, owner="k").id for _ in range(5)]
        ends = at_once(5, lambda index: store.update(ids[index], status="queued", within=[Capacity(2)]))
        assert sorted(type(end).__name__ for end in ends) == ["LimitReached"] * 3 + ["NoneType"] * 2
        assert store.count("queued") == 2

    def test_a_limit_counts_whom_it_is_for(self, store: ExperimentStore) -> None:
        first, second, third = (add(store, owner=owner).id for owner in ("a", "a", "b"))
        limits = [Capacity(3), Capacity(1, owner="a")]
        store.update(first, status="running", within=limits)
        with pytest.raises(LimitReached, match=r"At most 1 experiments of this key .* and 1 are"):
            store.update(second, status="running", within=limits)
        store.update(third, status="running", within=[Capacity(3), Capacity(1, owner="b")])
        store.update(first, reason="no new place taken", within=limits)
        store.update(first, status="paused", within=[Capacity(0)])
        store.update(second, status="running", within=limits)
        assert (store.count("running"), store.count("running", "paused", owner="a")) == (2, 2)

    def test_runs_belong_to_one_experiment_and_seed(self, store: ExperimentStore, tmp_path: Path) -> None:
        one, other = add(store, seeds=[0, 1]), add(store)
        for seed in (1, 0):
            store.add_run(one.id, f"run-{seed}", tmp_path / f"run-{seed}", seed)
        assert store.get(one.id).run_ids == ("run-1", "run-0")
        assert [(run.run_id, run.seed, run.run_path) for run in store.runs(one.id)] == [
            ("run-1", 1, tmp_path / "run-1"),
            ("run-0", 0, tmp_path / "run-0"),
        ]
        assert {found.id: found.run_ids for found in store.list().items} == {
            one.id: ("run-1", "run-0"),
            other.id: (),
        }
        with pytest.raises(Conflict, match="has a run of seed 1 already"):
            store.add_run(one.id, "run-again", tmp_path, 1)
        with pytest.raises(Conflict, match="run run-0 belongs to another"):
            store.add_run(other.id, "run-0", tmp_path, 0)

    def test_a_deleted_experiment_is_gone_with_its_runs(self, store: ExperimentStore, tmp_path: Path) -> None:
        made = add(store)
        store.add_run(made.id, "r", tmp_path, 0)
        with pytest.raises(Conflict, match="must be completed for this, got created"):
            store.delete(made.id, expected_status="completed")
        store.delete(made.id, expected_status=["created"])
        with pytest.raises(ExperimentNotFound, match=made.id):
            store.get(made.id)
        assert store.add_run(add(store).id, "r", tmp_path, 0).run_id == "r"

    def test_what_a_restart_must_look_after_is_listed(self, store: ExperimentStore) -> None:
        states: tuple[RunState, ...] = ("created", "queued", "running", "paused", "completed", "stopped", "failed")
        for state in states:
            store.update(add(store, name=state, kind="grpo" if state == "paused" else "experiment").id, status=state)
        assert [found.name for found in store.unfinished()] == ["queued", "running", "paused"]
        assert [found.name for found in store.unfinished("grpo")] == ["paused"]

    def test_nothing_of_a_transaction_that_fails_is_kept(self, database: Database, store: ExperimentStore) -> None:
        made = add(store)

        def fail() -> None:
            with database.begin() as connection:
                connection.execute(EXPERIMENTS.update().values(reason="half"))
                raise SpecError("stopped here")

        with pytest.raises(SpecError, match="stopped here"):
            fail()
        assert store.get(made.id) == made

    def test_a_reader_sees_one_moment(self, database: Database, store: ExperimentStore) -> None:
        add(store)
        query = select(EXPERIMENTS.c.id)
        with database.read() as connection:
            before = connection.execute(query).all()
            threading_end = at_once(1, lambda _: add(store))
            assert connection.execute(query).all() == before
        assert threading_end == [None]
        assert store.list().total == 2
