"""Experiments: what a user asked to be trained, over one or several seeds, and the runs that came of it.

A change of an experiment is one transaction over its present state (`edit`), so that of two who change it at once, the
second sees what the first did: two starts cannot both succeed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from rlplatform.artifacts.run_state import FINISHED, RunState
from rlplatform.errors import Conflict, ExperimentNotFound, unknown_name
from rlplatform.store.capacity import Capacity, check_room, count_experiments
from rlplatform.store.database import Database
from rlplatform.store.pages import Page, fetch_page
from rlplatform.store.tables import EXPERIMENT_RUNS as RUNS
from rlplatform.store.tables import EXPERIMENTS, now

Kind = Literal["experiment", "grpo"]
"""Which of the originals' interfaces asked for it: A's experiments, or B's training jobs."""

Wanted = Literal["train", "pause", "stop"]
"""What was asked of an experiment and is not carried out yet."""

UNFINISHED: frozenset[RunState] = frozenset({"queued", "running", "paused"})
"""The states of experiments that have begun and not ended."""

_ORDERS = {name: EXPERIMENTS.c[name] for name in ("created_at", "updated_at", "status")}
_ORDERS["name"] = EXPERIMENTS.c.name_folded


@dataclass(frozen=True)
class Experiment:
    """What was asked for, and what became of it."""

    id: str
    kind: Kind
    name: str
    algorithm: str
    env_id: str
    spec: Mapping[str, Any]
    """A `RunSpec` as `model_dump(mode="json")` has it; each run takes one of the seeds."""
    seeds: tuple[int, ...]
    description: str
    hypothesis: str
    status: RunState
    wanted: Wanted | None
    """What was asked of it and is not carried out yet. None: it goes its way."""
    reason: str | None
    """Why it is in this state, in words."""
    owner: str | None
    """Id of the key that asked for it. None: nobody had to show one."""
    legacy: Mapping[str, Any]
    """What the originals' documents know under names of their own."""
    run_ids: tuple[str, ...]
    """In the order in which they were added."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    """When it first was `running`."""
    ended_at: datetime | None
    """When it ended; None again while it goes on."""


@dataclass(frozen=True)
class ExperimentRun:
    """One run of an experiment."""

    run_id: str
    experiment_id: str
    run_path: Path
    seed: int
    created_at: datetime


class ExperimentFields(TypedDict, total=False):
    """What of an experiment can be changed."""

    name: str
    algorithm: str
    env_id: str
    spec: Mapping[str, Any]
    seeds: Sequence[int]
    description: str
    hypothesis: str
    status: RunState
    wanted: Wanted | None
    reason: str | None
    legacy: Mapping[str, Any]


class ExperimentStore:
    """The experiments of a database."""

    def __init__(self, database: Database) -> None:
        """Keep experiments in `database`, whose schema is up to date."""
        self._database = database

    def create(
        self,
        *,
        name: str,
        algorithm: str,
        env_id: str,
        spec: Mapping[str, Any],
        seeds: Sequence[int],
        description: str = "",
        hypothesis: str = "",
        owner: str | None = None,
        kind: Kind = "experiment",
        legacy: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Experiment:
        """Add an experiment in the state `created`, and return it.

        Args:
            name: For people; need not be unique.
            algorithm: Its name in the catalog.
            env_id: Its name in the catalog.
            spec: See `Experiment.spec`.
            seeds: One run each.
            description: For people.
            hypothesis: What is expected of it.
            owner: See `Experiment.owner`.
            kind: Which interface asked for it.
            legacy: See `Experiment.legacy`.
            id: Its id, so that asking again for the same one is noticed. None: a new one.

        Raises:
            Conflict: There is one of that id.
        """
        at, id = now(), id or str(uuid.uuid4())
        values = {
            "id": id,
            "kind": kind,
            "algorithm": algorithm,
            "env_id": env_id,
            "spec": dict(spec),
            "seeds": list(seeds),
            "description": description,
            "hypothesis": hypothesis,
            "status": "created",
            "owner": owner,
            "legacy": dict(legacy or {}),
            "created_at": at,
            "updated_at": at,
            "name": name,
            "name_folded": name.casefold(),
        }
        try:
            with self._database.begin() as connection:
                connection.execute(insert(EXPERIMENTS).values(values))
                return _get(connection, id)
        except IntegrityError as error:
            raise Conflict(f"There is an experiment {id!r} already. Leave the id out to get a new one.") from error

    def get(self, id: str) -> Experiment:
        """Return one experiment.

        Raises:
            ExperimentNotFound: There is none of that id.
        """
        with self._database.read() as connection:
            return _get(connection, id)

    def list(
        self,
        *,
        status: RunState | Collection[RunState] | None = None,
        algorithm: str | None = None,
        name: str | None = None,
        env: str | None = None,
        owner: str | None = None,
        kind: Kind | None = None,
        offset: int = 0,
        limit: int = 100,
        order: str = "-created_at",
    ) -> Page[Experiment]:
        """Return one page of the experiments that meet every filter given.

        Args:
            status: One state, or several of which it has one.
            algorithm: The algorithm, in upper or lower case.
            name: Part of the name, in upper or lower case; `%` and `_` stand for themselves.
            env: The environment.
            owner: Who asked for it.
            kind: Which interface asked for it.
            offset: Experiments to pass over.
            limit: Most experiments to return, 1 to `MAX_PAGE`.
            order: `created_at`, `updated_at`, `name` or `status`; with a `-` before it, downwards.

        Raises:
            UnknownNameError: `order` is none of these.
            SpecError: `offset` or `limit` is out of its range.
        """
        by = _ORDERS.get(order.removeprefix("-"))
        if by is None:
            raise unknown_name("order", order, _ORDERS)
        sort = by.desc() if order.startswith("-") else by.asc()
        query = select(EXPERIMENTS)
        if status is not None:
            query = query.where(EXPERIMENTS.c.status.in_([status] if isinstance(status, str) else list(status)))
        if name is not None:
            query = query.where(EXPERIMENTS.c.name_folded.contains(name.casefold(), autoescape=True))
        lowered = None if algorithm is None else algorithm.lower()
        columns = func.lower(EXPERIMENTS.c.algorithm), EXPERIMENTS.c.env_id, EXPERIMENTS.c.owner, EXPERIMENTS.c.kind
        for column, wanted in zip(columns, (lowered, env, owner, kind), strict=True):
            if wanted is not None:
                query = query.where(column == wanted)
        with self._database.read() as connection:
            page = fetch_page(connection, query, (sort, EXPERIMENTS.c.id), (offset, limit), lambda row: row)
            return Page(_experiments(connection, page.items), page.total, offset, limit)

    def unfinished(self, kind: Kind | None = None) -> tuple[Experiment, ...]:
        """Return every experiment that has begun and not ended, the oldest first: what a restart must look after."""
        query = select(EXPERIMENTS).where(EXPERIMENTS.c.status.in_(UNFINISHED))
        if kind is not None:
            query = query.where(EXPERIMENTS.c.kind == kind)
        query = query.order_by(EXPERIMENTS.c.created_at, EXPERIMENTS.c.id)
        with self._database.read() as connection:
            return _experiments(connection, connection.execute(query).all())

    def count(self, *statuses: RunState, owner: str | None = None) -> int:
        """Return how many experiments are in one of some states."""
        with self._database.read() as connection:
            return count_experiments(connection, statuses, owner)

    def edit(
        self, id: str, change: Callable[[Experiment], ExperimentFields], *, within: Sequence[Capacity] = ()
    ) -> Experiment:
        """Change an experiment by what `change` says of its present state; no change of another writer is lost.

        `started_at` and `ended_at` follow the status.

        Args:
            id: The experiment.
            change: Returns the new values; raises to change nothing. It runs in the transaction, so it should be short.
            within: Limits that must leave room for it in its new state.

        Raises:
            ExperimentNotFound: There is none of that id.
            LimitReached: There is no room.
        """
        with self._database.begin() as connection:
            if within and not self._database.is_sqlite:  # Else two could each see the last place free.
                connection.execute(text("LOCK TABLE experiments IN SHARE ROW EXCLUSIVE MODE"))
            old = _get(connection, id, lock=True)
            fields = change(old)
            check_room(connection, old.status, fields.get("status", old.status), within)
            values: dict[str, Any] = {**fields, "updated_at": now(), **_times(old, fields)}
            if "name" in fields:
                values["name_folded"] = fields["name"].casefold()
            connection.execute(update(EXPERIMENTS).where(EXPERIMENTS.c.id == id).values(values))
            return _get(connection, id)

    def update(
        self,
        id: str,
        *,
        expected_status: RunState | Collection[RunState] | None = None,
        within: Sequence[Capacity] = (),
        **fields: Unpack[ExperimentFields],
    ) -> Experiment:
        """Set fields of an experiment, if it is in the state that is expected.

        Args:
            id: The experiment.
            expected_status: The state, or the states, that it must be in. None: any.
            within: Limits that must leave room for it in its new state.
            **fields: The new values.

        Raises:
            ExperimentNotFound: There is none of that id.
            Conflict: It is in another state.
            LimitReached: There is no room.
        """

        def change(old: Experiment) -> ExperimentFields:
            _expect(old, expected_status)
            return fields

        return self.edit(id, change, within=within)

    def delete(self, id: str, *, expected_status: RunState | Collection[RunState] | None = None) -> None:
        """Forget an experiment and which runs it had; the runs' folders stay.

        Raises:
            ExperimentNotFound: There is none of that id.
            Conflict: It is not in the state, or the states, expected.
        """
        with self._database.begin() as connection:
            _expect(_get(connection, id, lock=True), expected_status)
            connection.execute(delete(EXPERIMENTS).where(EXPERIMENTS.c.id == id))

    def add_run(self, experiment_id: str, run_id: str, run_path: Path, seed: int) -> ExperimentRun:
        """Note that a run belongs to an experiment.

        Raises:
            ExperimentNotFound: There is no such experiment.
            Conflict: The experiment has a run of that seed, or the run belongs to one already.
        """
        run = ExperimentRun(run_id, experiment_id, run_path.absolute(), seed, now())
        try:
            with self._database.begin() as connection:
                _get(connection, experiment_id, lock=True)
                connection.execute(insert(RUNS).values({**vars(run), "run_path": str(run.run_path)}))
        except IntegrityError as error:
            raise Conflict(
                f"Experiment {experiment_id} has a run of seed {seed} already, or run {run_id} belongs to another."
            ) from error
        return run

    def runs(self, experiment_id: str) -> tuple[ExperimentRun, ...]:
        """Return an experiment's runs, in the order in which they were added.

        Raises:
            ExperimentNotFound: There is no such experiment.
        """
        with self._database.read() as connection:
            _get(connection, experiment_id)
            query = select(RUNS).where(RUNS.c.experiment_id == experiment_id).order_by(RUNS.c.created_at, RUNS.c.run_id)
            return tuple(
                ExperimentRun(row.run_id, row.experiment_id, Path(row.run_path), row.seed, row.created_at)
                for row in connection.execute(query)
            )


def _get(connection: Connection, id: str, *, lock: bool = False) -> Experiment:
    query = select(EXPERIMENTS).where(EXPERIMENTS.c.id == id)
    rows = connection.execute(query.with_for_update() if lock else query).all()
    if not rows:
        raise ExperimentNotFound(f"There is no experiment {id!r}. List them with GET /experiments.")
    return _experiments(connection, rows)[0]


def _experiments(connection: Connection, rows: Sequence[Row[Any]]) -> tuple[Experiment, ...]:
    runs: dict[str, list[str]] = {row.id: [] for row in rows}
    query: Select[Any] = select(RUNS.c.experiment_id, RUNS.c.run_id).where(RUNS.c.experiment_id.in_(runs))
    for experiment_id, run_id in connection.execute(query.order_by(RUNS.c.created_at, RUNS.c.run_id)):
        runs[experiment_id].append(run_id)
    return tuple(_experiment(row, runs[row.id]) for row in rows)


def _experiment(row: Row[Any], run_ids: Sequence[str]) -> Experiment:
    values = {key: value for key, value in row._mapping.items() if key != "name_folded"}
    return Experiment(**{**values, "seeds": tuple(values["seeds"]), "run_ids": tuple(run_ids)})


def _expect(found: Experiment, expected: RunState | Collection[RunState] | None) -> None:
    states = cast("Collection[RunState] | None", [expected] if isinstance(expected, str) else expected)
    if states is not None and found.status not in states:
        raise Conflict(
            f"Experiment {found.id} must be {' or '.join(sorted(states))} for this, got {found.status}. "
            "Look at it again: it may have changed meanwhile."
        )


def _times(old: Experiment, fields: ExperimentFields) -> dict[str, datetime | None]:
    status = fields.get("status")
    if status is None or status == old.status:
        return {}
    started = old.started_at or (now() if status == "running" else None)
    return {"started_at": started, "ended_at": now() if status in FINISHED else None}
