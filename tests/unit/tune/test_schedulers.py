"""Schedulers without Ray: they are told each report once, and what they have learned survives being written down."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from rlplatform.specs.search import SearchSpec
from rlplatform.tune.kept_scheduler import KeptScheduler
from rlplatform.tune.schedulers import make_scheduler
from tests.unit.tune.small_search import RATE, small_search

SCHEDULERS: dict[str, dict[str, Any]] = {
    "none": {},
    "asha": {"grace_steps": 64, "reduction_factor": 2},
    "median": {"grace_steps": 64, "min_trials": 2},
    "hyperband": {"every_steps": 64, "reduction_factor": 2},
    "pbt": {"every_steps": 64, "synchronous": False},
    "pb2": {"every_steps": 64, "synchronous": False},
}


class Controller:
    """What schedulers ask of Tune."""

    search_alg = None

    def __init__(self, scheduler: KeptScheduler, trials: list[Trial]) -> None:
        self.scheduler, self.trials = scheduler, trials
        self.stopped: list[str] = []

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status not in (Trial.TERMINATED, Trial.ERROR)]

    def stop_trial(self, trial: Trial) -> None:
        self.stopped.append(trial.trial_id)
        trial.set_status(Trial.TERMINATED)

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        trial.set_status(Trial.PAUSED)

    def _schedule_trial_save(self, trial: Trial, result: Any = None) -> str:
        return f"checkpoint of {trial.trial_id}"


def spec_of(name: str, **changes: Any) -> SearchSpec:
    return small_search(scheduler={"name": name, **SCHEDULERS[name]}, **changes)


def new_trial(number: int) -> Trial:
    trial = Trial("RunTrainable", config={RATE: 1e-3 * (number + 1)}, trial_id=f"{number:04d}", stub=True)
    trial.set_status(Trial.RUNNING)
    return trial


def report(trial: Trial, iteration: int, generation: int = 0) -> dict[str, Any]:
    """Return a report of a trial whose value is its number, plus its age."""
    value = float(int(trial.trial_id)) + iteration
    return {"training_iteration": iteration, "generation": generation, "step": 64 * iteration, "value": value}


def started(spec: SearchSpec, n_trials: int = 4) -> Controller:
    scheduler, trials = make_scheduler(spec, concurrent=2), [new_trial(number) for number in range(n_trials)]
    controller = Controller(scheduler, trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    return controller


def play(controller: Controller, iterations: range) -> list[str]:
    """Report every live trial's iterations in turn; return the decisions."""
    decisions = []
    for iteration in iterations:
        for trial in controller.get_live_trials():
            trial.set_status(Trial.RUNNING)
            decision = controller.scheduler.on_trial_result(controller, trial, report(trial, iteration))
            decisions.append(f"{trial.trial_id}: {decision}")
            if decision == TrialScheduler.STOP:
                controller.stop_trial(trial)
    return decisions


def memory(scheduler: KeptScheduler) -> str:
    """Return what a scheduler has learned, with trials by their ids, as text that can be compared."""

    def plain(value: Any) -> Any:
        if isinstance(value, Trial):
            return value.trial_id
        if isinstance(value, dict):
            return {str(plain(key)): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, set):
            return sorted(str(plain(item)) for item in value)
        if hasattr(value, "to_dict"):
            return value.to_dict()
        if type(value).__module__.startswith("ray.") and hasattr(value, "__dict__"):
            return plain(vars(value))
        return value

    return str({name: plain(getattr(scheduler, name)) for name in ("_seen", "_generators", *scheduler.MEMORY)})


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_a_scheduler_has_learned_survives_the_death_of_the_driver(name: str) -> None:
    before = started(spec_of(name))
    play(before, range(1, 3))
    written = before.scheduler.memory()
    trials = {trial.trial_id: new_trial(int(trial.trial_id)) for trial in before.trials}
    for trial in before.trials:
        trials[trial.trial_id].set_status(trial.status)
        trials[trial.trial_id].set_config(trial.config)
    after = Controller(make_scheduler(spec_of(name), concurrent=2), list(trials.values()))
    after.scheduler.remember(written, trials)
    assert memory(after.scheduler) == memory(before.scheduler)
    for trial in after.get_live_trials():
        after.scheduler.on_trial_add(after, trial)
    if name != "hyperband":  # which lets those that may go on be chosen again
        assert memory(after.scheduler) == memory(before.scheduler)
    assert play(after, range(3, 5)) == play(before, range(3, 5))
    assert [trial.config for trial in after.trials] == [trial.config for trial in before.trials]


def test_rungs_and_scores_are_really_there_after_a_restore() -> None:
    asha = started(spec_of("asha"))
    play(asha, range(1, 3))
    rungs = {step: recorded for step, recorded in asha.scheduler._brackets[0]._rungs if recorded}  # type: ignore[attr-defined]
    assert set(rungs) == {64, 128}
    pbt = started(spec_of("pbt"))
    play(pbt, range(1, 2))
    scores = {t.trial_id: state.last_score for t, state in pbt.scheduler._trial_state.items()}  # type: ignore[attr-defined]
    assert scores == {"0000": 1.0, "0001": 2.0, "0002": 3.0, "0003": 4.0}


@pytest.mark.parametrize("name", ["asha", "median", "pbt"])
def test_a_report_that_was_decided_on_is_passed_over(name: str) -> None:
    controller = started(spec_of(name))
    play(controller, range(1, 3))
    trial, before = controller.get_live_trials()[0], memory(controller.scheduler)
    again = controller.scheduler.on_trial_result(controller, trial, report(trial, 2))
    assert again == TrialScheduler.CONTINUE
    assert memory(controller.scheduler) == before
    controller.scheduler.on_trial_result(controller, trial, report(trial, 1, generation=1))
    assert memory(controller.scheduler) != before, "a trial that took over another reports anew"


GAMMA, EPOCHS, BATCH, STEPS = ("algorithm.gamma", "algorithm.n_epochs", "algorithm.batch_size", "algorithm.n_steps")


@pytest.mark.parametrize(
    ("factor", "moved"),
    [
        (1.2, {RATE: 1.2e-3, GAMMA: 0.918, EPOCHS: 4, BATCH: 256, STEPS: 128}),
        (0.8, {RATE: 8e-4, GAMMA: 0.9, EPOCHS: 2, BATCH: 64, STEPS: 64}),
        (100.0, {RATE: 1e-2, GAMMA: 0.99, EPOCHS: 6, BATCH: 256, STEPS: 192}),
    ],
)
def test_population_based_training_moves_a_parameter_on_the_scale_of_its_range(
    factor: float, moved: dict[str, Any]
) -> None:
    spec = small_search(
        scheduler={"name": "pbt", "every_steps": 64, "factors": [factor, factor], "resample_probability": 0.0},
        space={
            RATE: {"type": "loguniform", "low": 1e-4, "high": 1e-2},
            GAMMA: {"type": "uniform", "low": 0.9, "high": 0.99},
            EPOCHS: {"type": "int", "low": 2, "high": 6},
            BATCH: {"type": "choice", "values": [64, 128, 256]},
            STEPS: {"type": "int", "low": 64, "high": 192, "step": 64},
        },
    )
    explore = make_scheduler(spec, concurrent=2)._custom_explore_fn  # type: ignore[attr-defined]
    changed = explore({RATE: 1e-3, GAMMA: 0.9, EPOCHS: 3, BATCH: 128, STEPS: 64, "search": "/somewhere"})
    assert changed == pytest.approx({**moved, "search": "/somewhere"})


def test_the_model_of_pb2_sees_a_logarithmic_range_on_its_logarithm() -> None:
    controller = started(spec_of("pb2"))
    configs = [dict(trial.config) for trial in controller.trials]
    play(controller, range(1, 2))
    pb2: Any = controller.scheduler
    assert pb2._hyperparam_bounds == {RATE: pytest.approx([math.log(1e-5), math.log(1e-2)])}
    assert pb2.data[RATE].tolist() == pytest.approx([math.log(config[RATE]) for config in configs])
    assert [trial.config for trial in controller.trials] == configs
    best = controller.trials[-1]
    proposed, _ = pb2._get_new_config(controller.trials[0], best)
    assert proposed == pytest.approx(best.config), "nothing is known yet, so the best one's rate is kept"


def test_no_more_trials_train_than_may() -> None:
    controller = started(spec_of("pbt"))
    for trial in controller.trials:
        trial.set_status(Trial.PAUSED)
    chosen = controller.scheduler.choose_trial_to_run(controller)
    assert chosen is controller.trials[0]
    controller.trials[0].set_status(Trial.RUNNING)
    controller.trials[1].set_status(Trial.PENDING)
    assert controller.scheduler.choose_trial_to_run(controller) is None


def test_a_population_that_waits_for_a_trial_that_failed_goes_on() -> None:
    spec = small_search(scheduler={"name": "pbt", "every_steps": 64, "synchronous": True})
    controller = started(spec)
    *waiting, failed = controller.trials
    for trial in waiting:
        controller.scheduler.on_trial_result(controller, trial, report(trial, 1))
        trial.set_status(Trial.PAUSED)
    failed.set_status(Trial.ERROR)
    controller.scheduler.on_trial_complete(controller, failed, {"failed": True})
    assert controller.scheduler.choose_trial_to_run(controller) is waiting[0]
