"""The keeper, with runs that only pretend to train: what it asks of Ray, and that no restart loses or repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import ResourceError, SpecError
from rlplatform.serve.experiments import MODEL_NAME
from rlplatform.serve.keeper import SHUT_DOWN, Keeper
from rlplatform.specs.run import RunSpec
from rlplatform.specs.settings import Settings
from rlplatform.store.database import open_database
from rlplatform.store.experiments import Experiment, ExperimentStore, Wanted
from tests.unit.train.small_specs import small_spec


@dataclass
class Done:
    """An errand that is over, or fails."""

    value: Any

    def result(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@dataclass
class Pretended:
    """A RunManager that trains nothing: a test says what becomes of each run."""

    home: Path
    trains: dict[str, RunDir] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """Everything that the keeper asked for, in order."""
    refusal: Exception | None = None

    def known(self) -> Mapping[str, str]:
        return {id: "paused" if id in self.paused else "running" for id in self.trains}

    def submit(self, runs: Sequence[RunDir]) -> None:
        for run in runs:
            assert self.known().get(run.id, "paused") == "paused", "a run is handed over twice"
            self.asked.append(f"submit {run.read().seed}")
            self.trains[run.id] = run
            self.paused.discard(run.id)
            run.update(state="queued", reason="submitted")

    def request(self, runs: Sequence[RunDir], action: Wanted, reason: str) -> None:
        self.asked += [f"{action} {run.read().seed}" for run in runs]

    def prepare(self, experiment: Experiment) -> Done:
        self.asked.append("prepare")
        if self.refusal:
            return Done(self.refusal)
        made = []
        for seed in experiment.seeds:
            path = self.home / "runs" / f"s{seed}-{experiment.id}"
            if not path.exists():
                RunDir.create(self.home, RunSpec.model_validate({**experiment.spec, "seed": seed}), path)
            made.append((str(path), seed))
        return Done(made)

    def publish(self, run: RunDir, model: str) -> Done:
        self.asked.append(f"publish {run.read().seed} as {model}")
        return Done(self.refusal or f"{model}@1")

    def begin(self, *seeds: int) -> None:
        """Let runs train."""
        for run in self._of(seeds):
            run.begin_attempt(0)

    def end(self, state: Any, *seeds: int, result: Any = None) -> None:
        """Let runs end."""
        for run in self._of(seeds):
            run.end_attempt(state, 64, f"it is {state}", result=result)
            if state == "paused":
                self.paused.add(run.id)
            else:
                del self.trains[run.id]

    def _of(self, seeds: Sequence[int]) -> list[RunDir]:
        return [run for run in self.trains.values() if not seeds or run.read().seed in seeds]


@dataclass
class World:
    """A store, what pretends to train, and a keeper."""

    store: ExperimentStore
    workers: Pretended
    home: Path
    max_concurrent: int = 3

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what only the process of the keeper knew."""
        self.keeper = Keeper(self.store, self.workers, self.max_concurrent, self.home)

    def tick(self, times: int = 3) -> None:
        for _ in range(times):
            self.keeper.tick()

    def start(self, *seeds: int) -> str:
        spec = small_spec("ppo").model_dump(mode="json")
        made = self.store.create(
            name="x",
            algorithm="ppo",
            env_id="CartPole-v1",
            spec=spec,
            seeds=seeds or (0,),
            legacy={MODEL_NAME: "model"},
        )
        self.store.update(made.id, status="queued", wanted="train")
        return made.id

    def status(self, id: str) -> tuple[str, str | None]:
        found = self.store.get(id)
        return found.status, found.wanted

    def runs(self, id: str) -> list[RunDir]:
        return [RunDir(run.run_path) for run in self.store.runs(id)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(open_database(Settings(home=tmp_path))) as database:
        yield World(ExperimentStore(database), Pretended(tmp_path), tmp_path)


def test_an_experiment_is_prepared_trained_and_published_once(world: World) -> None:
    id = world.start(0, 1)
    world.tick()
    assert world.workers.asked == ["prepare", "submit 0", "submit 1"]
    assert world.status(id) == ("queued", None)
    world.workers.begin(0)
    world.tick()
    assert world.status(id) == ("running", None)
    world.workers.end("completed", 0, result={"best_return": 1.0})
    world.workers.begin(1)
    world.workers.end("completed", 1, result={"best_return": 2.0})
    world.tick()
    assert world.status(id) == ("completed", None)
    assert world.workers.asked[3:] == ["publish 1 as model"]
    assert (world.store.get(id).reason or "").endswith("its policy is model@1")
    assert world.store.get(id).started_at


@pytest.mark.parametrize("until", range(1, 5))
def test_a_keeper_that_is_restarted_at_any_time_does_nothing_twice(world: World, until: int) -> None:
    id = world.start()
    world.tick(until)
    world.restart()
    world.tick()
    assert world.workers.asked.count("submit 0") == 1
    assert len(world.runs(id)) == 1


def test_a_run_that_the_manager_has_lost_is_handed_over_again(world: World) -> None:
    id = world.start()
    world.tick()
    world.workers.begin()
    world.workers.trains.clear()
    world.tick()
    assert world.workers.asked == ["prepare", "submit 0", "submit 0"]
    assert world.status(id)[0] == "queued"


def test_a_pause_is_asked_once_and_then_resumed_from(world: World) -> None:
    id = world.start()
    world.tick()
    world.workers.begin()
    world.store.update(id, wanted="pause")
    world.tick()
    assert (world.workers.asked[2:], world.status(id)) == (["pause 0"], ("queued", "pause"))
    world.workers.end("paused")
    world.tick()
    assert world.status(id) == ("paused", None)
    world.store.update(id, status="queued", wanted="train")
    world.tick()
    assert (world.workers.asked[3:], world.status(id)) == (["submit 0"], ("queued", None))


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("stop", "stopped")])
def test_what_nobody_trains_is_laid_down_at_once(world: World, action: Wanted, status: str) -> None:
    id = world.start()
    world.store.update(id, wanted=action)
    world.tick()
    assert world.status(id) == (status, None)
    id = world.start()
    world.tick()
    world.workers.begin()
    world.workers.trains.clear()
    world.store.update(id, wanted=action)
    world.tick(1)
    assert world.status(id) == (status, None)
    assert world.runs(id)[0].read().state == status
    assert not [asked for asked in world.workers.asked if asked.startswith("publish")]


def test_runs_that_a_shutdown_paused_go_on_and_those_that_somebody_paused_do_not(world: World) -> None:
    id = world.start()
    world.tick()
    world.workers.begin()
    (run,) = world.runs(id)
    world.workers.end("paused")
    run.update(reason=SHUT_DOWN)
    world.tick()
    assert world.workers.asked == ["prepare", "submit 0", "submit 0"]
    world.workers.end("paused")
    world.tick()
    assert (len(world.workers.asked), world.status(id)) == (3, ("paused", None))


def test_more_steps_reach_the_runs_and_a_complete_one_goes_on(world: World) -> None:
    id = world.start()
    world.tick()
    world.workers.begin()
    world.workers.end("completed")
    world.tick()
    assert world.status(id)[0] == "completed"
    spec = dict(world.store.get(id).spec)
    spec["budget"] = spec["budget"] | {"total_timesteps": 1000}
    world.store.update(id, status="queued", wanted="train", spec=spec)
    world.tick()
    (run,) = world.runs(id)
    assert run.spec().budget.total_timesteps == 1000
    assert (run.read().state, world.workers.asked[-1]) == ("queued", "submit 0")


def test_beyond_the_limit_experiments_wait_for_their_turn(world: World) -> None:
    world.max_concurrent = 1
    world.restart()
    first, second = world.start(), world.start()
    world.tick()
    assert world.workers.asked == ["prepare", "submit 0"]
    assert "the limit is 1" in (world.store.get(second).reason or "")
    world.workers.begin()
    world.workers.end("failed")
    world.tick()
    assert (world.status(first)[0], world.status(second)) == ("failed", ("queued", None))


def test_what_cannot_be_trained_fails_with_its_reason(world: World) -> None:
    world.workers.refusal = SpecError("no such thing")
    id = world.start()
    world.tick(1)
    assert (world.status(id), world.store.get(id).reason) == (("failed", None), "no such thing")


def test_a_policy_that_cannot_be_published_does_not_fail_its_experiment(world: World) -> None:
    id = world.start()
    world.tick()
    world.workers.begin()
    world.workers.end("completed")
    world.workers.refusal = ResourceError("no room")
    world.tick()
    assert world.status(id) == ("completed", None)
    assert "could not be published: no room" in (world.store.get(id).reason or "")


def test_an_experiment_whose_run_was_removed_fails(world: World) -> None:
    id = world.start()
    world.tick()
    (run,) = world.runs(id)
    run.run_path.unlink()
    world.workers.trains.clear()
    world.tick()
    assert (world.status(id)[0], world.store.get(id).reason) == ("failed", f"the folder of its run {run.id} is gone")


def test_errands_that_nobody_waits_for_any_more_take_no_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Done, "result", lambda _: None)
    ids = [world.start() for _ in range(3)]
    world.tick()
    assert world.workers.asked == ["prepare", "prepare"]
    for id in ids[:2]:
        world.store.update(id, wanted="stop")
    world.tick()
    assert world.workers.asked == ["prepare", "prepare", "prepare"]
    assert [world.status(id)[0] for id in ids] == ["stopped", "stopped", "queued"]
