"""One trial without Ray: its seeds side by side, its going on, its becoming a copy of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.errors import SpecError
from rlplatform.specs.search import SearchSpec
from rlplatform.train.compare import newest_policy, weights_sha256
from rlplatform.train.trainer import Trainer
from rlplatform.tune.trial import TrialReport, TrialRuns, aggregate
from rlplatform.tune.trial_folder import read_note
from tests.unit.tune.small_search import RATE, small_search

TWO_SEEDS = {"objective": {"seeds": [3, 4]}}


class FailsLate(gym.Env[np.ndarray, np.int64]):
    """An environment with a defect that shows late."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.left = 600  # The probe of exact state takes some

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("a defect of the environment")
        return np.zeros(2, np.float32), 0.0, False, False, {}


def trial_of(home: Path, spec: SearchSpec, trial_id: str = "0000", rate: float = 1e-3, **point: Any) -> TrialRuns:
    found = list((home / names.SEARCHES_DIR).glob("*"))
    search = SearchDir(found[0]) if found else SearchDir.create(home, spec)
    return TrialRuns(search, spec, trial_id, {RATE: rate, **point})


def finish(trial: TrialRuns) -> list[TrialReport]:
    """Train a trial to its end; return its reports."""
    if not trial.started:
        trial.start()
    reports = [trial.advance()]
    while not reports[-1].done:
        reports.append(trial.advance())
    return reports


def runs_of(trial: TrialRuns) -> list[RunDir]:
    return [RunDir(trial.path / f"seed_{seed}") for seed in trial.spec.seeds]


def weights(trial: TrialRuns) -> list[str]:
    return [weights_sha256(newest_policy(run)) for run in runs_of(trial)]


def values(reports: list[TrialReport]) -> dict[int, float]:
    return {report.iteration: report.value for report in reports}


def test_a_trial_reports_each_evaluation_and_its_runs_are_runs(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, small_search())
    reports = finish(trial)
    assert [(report.iteration, report.step, report.done) for report in reports] == [
        (1, 64, False),
        (2, 128, False),
        (3, 192, False),
        (4, 256, True),
    ]
    assert reports[-1].best_value == max(report.value for report in reports)
    assert not trial.started
    (run,) = runs_of(trial)
    assert run.read().state == "completed"
    assert run.spec().algorithm.model_dump()["learning_rate"] == 1e-3
    assert RunDir.open(tmp_path, run.id) == run
    assert run.home == tmp_path
    assert Trainer.open(run).spec == run.spec()


def test_seeds_train_side_by_side_as_each_would_alone(tmp_path: Path) -> None:
    both = trial_of(tmp_path / "both", small_search(**TWO_SEEDS))
    reports = finish(both)
    alone = [trial_of(tmp_path / str(seed), small_search(objective={"seeds": [seed]})) for seed in (3, 4)]
    single = [finish(trial) for trial in alone]
    assert weights(both) == [weight for trial in alone for weight in weights(trial)]
    assert [report.value for report in reports] == [(a.value + b.value) / 2 for a, b in zip(*single, strict=True)]


def test_each_seed_of_a_trial_is_a_run_in_weights_and_biases_too(tmp_path: Path) -> None:
    tracking = {"tensorboard": False, "csv": False, "wandb": {"mode": "offline"}}
    trial = trial_of(tmp_path, small_search(run={"tracking": tracking}, **TWO_SEEDS))
    finish(trial)
    kept = [[found.name for found in run.path.glob("wandb/offline-run-*")] for run in runs_of(trial)]
    assert [name.rpartition("trials-")[2] for (name,) in kept] == ["0000-seed_3", "0000-seed_4"]


@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_a_trial_that_is_left_and_taken_up_ends_as_one_that_was_not(tmp_path: Path, evaluations: int) -> None:
    spec = small_search(run={"checkpoint": {"every_steps": 128}}, **TWO_SEEDS)
    whole = trial_of(tmp_path / "whole", spec)
    reports = finish(whole)
    first = trial_of(tmp_path / "left", spec)
    first.start()
    before = [first.advance() for _ in range(evaluations)]
    first.close("paused", "a test")
    assert [run.read().state for run in runs_of(first)] == ["paused", "paused"]
    second = trial_of(tmp_path / "left", spec)
    after = finish(second)
    assert after[0] == before[-1].__class__(**{**vars(before[-1]), "trained_steps": 0}), "it tells its latest again"
    assert values(before) | values(after) == values(reports)
    assert weights(second) == weights(whole)


def test_a_trial_whose_process_died_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    spec = small_search(run={"checkpoint": {"every_steps": 128}})
    whole = trial_of(tmp_path / "whole", spec)
    reports = finish(whole)
    died = trial_of(tmp_path / "died", spec)
    died.start()
    for _ in range(3):
        died.advance()
    del died  # and its locks with it; nobody writes a checkpoint at step 192
    after = finish(trial_of(tmp_path / "died", spec))
    assert [report.iteration for report in after] == [2, 3, 4]
    assert values(after) == {number: value for number, value in values(reports).items() if number > 1}
    assert weights(trial_of(tmp_path / "died", spec)) == weights(whole)


def test_a_trial_becomes_a_copy_of_another_under_its_own_point(tmp_path: Path) -> None:
    spec = small_search(**TWO_SEEDS)
    donor, heir = trial_of(tmp_path, spec, "0000"), trial_of(tmp_path, spec, "0001", rate=1e-4)
    for trial in (donor, heir):
        trial.start()
    told = [donor.advance() for _ in range(2)][-1]
    heir.advance()
    folder = tmp_path / "saved"
    folder.mkdir()
    donor.save(folder)
    best = [(run.best_path / names.BEST_FILE).read_bytes() for run in runs_of(donor)]
    heir.adopt(folder)
    heir.start()
    assert [(run.best_path / names.BEST_FILE).read_bytes() for run in runs_of(heir)] == best
    first = heir.advance()
    assert (first.generation, first.iteration, first.step, first.value) == (1, 2, 128, told.value)
    for run in runs_of(heir):
        (amendment,) = run.read().amendments
        assert amendment.changes == {RATE: (1e-3, 1e-4)}
        assert amendment.note == "took over the networks of trial 0000 at step 128"
        steps = [json.loads(line)["step"] for line in run.evaluations_path.read_text().splitlines()]
        assert steps == [64, 128]
    heir.adopt(folder)
    assert heir.started, "what was taken over already is not taken over again"
    assert finish(heir)[-1].iteration == 4
    assert weights(heir) != [weights_sha256(newest_policy(run)) for run in runs_of(donor)]
    assert read_note(heir.path).generation == 1


def test_a_copy_does_not_repeat_what_its_origin_goes_on_to_do(tmp_path: Path) -> None:
    folder, spec = tmp_path / "saved", small_search()
    folder.mkdir()
    donor = trial_of(tmp_path / "whole", spec)
    donor.start()
    donor.advance()
    donor.save(folder)
    finish(donor)
    heirs = [trial_of(tmp_path / home, spec, "0001") for home in ("whole", "left")]
    for heir in heirs:
        heir.adopt(folder)
    heirs[1].start()
    heirs[1].close("paused", "a test")
    for heir in heirs:
        finish(heir)
    assert heirs[0].point == donor.point
    assert weights(heirs[0]) != weights(donor)
    assert weights(heirs[0]) == weights(heirs[1])


def test_its_own_checkpoint_changes_nothing_that_is_there(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, small_search())
    trial.start()
    trial.advance()
    folder = tmp_path / "saved"
    folder.mkdir()
    trial.save(folder)
    trial.advance()
    trial.adopt(folder)
    assert trial.started
    assert trial.advance().iteration == 3


def test_what_cannot_change_in_a_live_model_is_refused_by_name(tmp_path: Path) -> None:
    spec = small_search(
        space={RATE: {"type": "uniform", "low": 0, "high": 1}, "env.n_envs": {"type": "int", "low": 1, "high": 4}}
    )
    donor, heir = trial_of(tmp_path, spec, "0000"), trial_of(tmp_path, spec, "0001", **{"env.n_envs": 4})
    donor.start()
    donor.advance()
    folder = tmp_path / "saved"
    folder.mkdir()
    donor.save(folder)
    with pytest.raises(SpecError, match=r"`env\.n_envs` is fixed once a run has begun, got 4 for 2"):
        heir.adopt(folder)


def test_a_trial_that_fails_leaves_runs_that_say_why(tmp_path: Path) -> None:
    env = {"id": f"{__name__}:FailsLate", "n_envs": 2, "max_episode_steps": 10, "backend": "sync", "state": "replay"}
    budget = {"total_timesteps": 2048}
    trial = trial_of(tmp_path, small_search(run={"env": env, "budget": budget}, **TWO_SEEDS))
    with pytest.raises(ZeroDivisionError, match="a defect of the environment") as raised:
        finish(trial)
    trial.fail(raised.value)
    first, second = runs_of(trial)
    assert "a defect of the environment" in str(first.read().reason)
    assert (first.read().state, second.read().state) == ("failed", "failed")
    assert not first.is_alive()


def test_the_scheduler_ends_training_before_the_budget(tmp_path: Path) -> None:
    scheduler = {"name": "asha", "grace_steps": 64, "max_steps": 128}
    reports = finish(trial := trial_of(tmp_path, small_search(scheduler=scheduler)))
    assert [report.step for report in reports] == [64, 128]
    assert reports[-1].reason == "trained the 128 steps that the scheduler allows"
    assert runs_of(trial)[0].read().state == "stopped"


def test_without_evaluations_in_between_the_final_one_counts(tmp_path: Path) -> None:
    evaluation = {"every_steps": None, "n_episodes": 2, "final_episodes": 3}
    (report,) = finish(trial_of(tmp_path, small_search(run={"evaluation": evaluation})))
    assert (report.iteration, report.done) == (1, True)
    assert report.value > 0


def test_from_four_seeds_on_outliers_do_not_count() -> None:
    assert aggregate([1.0, 2.0, 6.0]) == 3.0
    assert aggregate([0.0, 2.0, 4.0, 1e9]) == 3.0
