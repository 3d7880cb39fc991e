"""One run from its folder to its result: what is written, what stops it, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlplatform import names
from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import AlgorithmError, CheckpointError, RunStateError, SpecError, TrainingFailed
from rlplatform.specs.load import dump_spec, load_run_spec
from rlplatform.train.amend import amend_run
from rlplatform.train.compare import newest_policy, weights_sha256
from rlplatform.train.policy_folder import load_policy
from rlplatform.train.progress import Progress
from rlplatform.train.trainer import RunResult, Trainer
from tests.unit.train.small_specs import small_spec


class FailsAtStep(gym.Env[np.ndarray, np.int64]):
    """An environment with a defect that shows late."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, fails_at: int = 20) -> None:
        self.left = fails_at

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


def _fit(home: Path, name: str = "ppo", /, **changes: Any) -> tuple[Trainer, RunResult]:
    trainer = Trainer.create(small_spec(name, **changes), home)
    return trainer, trainer.fit()


def test_a_completed_run_leaves_everything_a_reader_needs(tmp_path: Path) -> None:
    trainer, result = _fit(tmp_path, tracking={"tensorboard": True})
    run = trainer.run_dir
    record = run.read()
    assert (result.state, record.state) == ("completed", "completed")
    assert (record.progress.step, record.progress.total) == (192, 192)
    assert record.result is not None
    assert record.result["final"]["n_episodes"] == 2  # type: ignore[index, call-overload]
    assert record.versions["stable_baselines3"]
    assert load_run_spec(run.spec_path, environ={}).spec == trainer.spec
    assert (record.env_backend, record.env_state) == ("sync", "replay")
    steps = [json.loads(line)[names.STEP] for line in run.metrics_path.read_text().splitlines()]
    assert steps == sorted(steps)
    with open(run.metrics_csv_path) as table:
        rows = list(csv.DictReader(table))
    assert [int(row[names.STEP]) for row in rows] == steps
    assert any(row[names.EVAL_RETURN_MEAN] for row in rows)
    purposes = [json.loads(line)["purpose"] for line in run.evaluations_path.read_text().splitlines()]
    assert purposes == ["evaluation"] * 3 + ["final evaluation"]
    assert list(run.tb_path.glob("events.out.tfevents.*"))
    assert (run.best_path / names.BEST_FILE).exists()


def test_only_the_newest_checkpoints_are_kept_and_the_last_is_final(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path, checkpoint={"every_steps": 32, "keep_last": 2})
    manifests = [checkpoint.manifest for checkpoint in CheckpointStore(trainer.run_dir.checkpoints_path, 2).all()]
    assert [manifest.kind for manifest in manifests] == ["scheduled", "final"]
    assert manifests[-1].step == 192


def test_a_reached_target_ends_the_run_as_completed_and_stays_ended(tmp_path: Path) -> None:
    trainer, result = _fit(tmp_path, early_stop={"target_return": 1.0})
    assert result.state == "completed"
    assert result.step == 64
    assert "reached the target" in result.reason
    assert Trainer.open(trainer.run_dir).fit().step == 64


def test_the_time_limit_stops_with_a_checkpoint(tmp_path: Path) -> None:
    trainer, result = _fit(tmp_path, budget={"total_timesteps": 10**9, "time_limit_s": 0.2})
    assert (result.state, trainer.run_dir.read().state) == ("stopped", "stopped")
    assert "time limit of 0.2 s" in result.reason
    assert CheckpointStore(trainer.run_dir.checkpoints_path, 3).all()[-1].manifest.step == result.step


def test_a_request_from_another_process_pauses_the_run_and_it_goes_on(tmp_path: Path) -> None:
    trainer = Trainer.create(small_spec("ppo"), tmp_path)
    trainer.run_dir.request("pause")
    assert trainer.fit().state == trainer.run_dir.read().state == "paused"
    assert trainer.run_dir.pending_request() is None
    again = Trainer.open(trainer.run_dir)
    assert again.fit().state == "completed"
    assert len(trainer.run_dir.read().attempts) == 2


class _Dies:
    """Listens until a step, then ends the process's work as SystemExit does: nothing is recorded."""

    def __init__(self, step: int = 64) -> None:
        self.step = step

    def on_progress(self, progress: Progress) -> None:
        if progress.step >= self.step:
            raise SystemExit("killed")


def test_a_request_that_a_killed_attempt_never_answered_does_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlplatform.train.trainer.PULSE_S", 0.0)
    run_dir = Trainer.create(small_spec("ppo"), tmp_path).run_dir
    with pytest.raises(SystemExit, match="killed"):
        Trainer.open(run_dir, _Dies()).fit()
    run_dir.request("stop")
    assert run_dir.read().state == "running"
    assert Trainer.open(run_dir).fit().state == "completed"


def test_a_larger_budget_is_recorded_and_trains_on(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path)
    (change,) = amend_run(trainer.run_dir, small_spec("ppo", budget={"total_timesteps": 320}, env=_resolved(trainer)))
    result = Trainer.open(trainer.run_dir).fit()
    assert (change.field, result.step) == ("budget.total_timesteps", 320)
    (amendment,) = trainer.run_dir.read().amendments
    assert amendment.note == "schedules now end at step 320; until this amendment they ended at 192"


def test_best_is_that_of_the_line_that_goes_on_after_an_amendment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlplatform.train.trainer.PULSE_S", 0.0)
    changes: dict[str, Any] = {"checkpoint": {"every_steps": 128}, "budget": {"total_timesteps": 320}}
    trainer = Trainer.create(small_spec("ppo", **changes), tmp_path)
    run_dir = trainer.run_dir
    with pytest.raises(SystemExit, match="killed"):
        Trainer.open(run_dir, _Dies(192)).fit()
    (checkpoint,) = CheckpointStore(run_dir.checkpoints_path, 3).all()
    assert checkpoint.manifest.step == 128
    of_then = _files(checkpoint.path / names.BEST_DIR)
    # As if the evaluation at step 192 had been the best; the amended run has none at all.
    (run_dir.best_path / names.BEST_FILE).write_text(json.dumps({names.STEP: 192, names.EVAL_RETURN_MEAN: 500.0}))
    amend_run(run_dir, small_spec("ppo", **changes, env=_resolved(trainer), evaluation={"every_steps": None}))
    assert Trainer.open(run_dir).fit().state == "completed"
    assert _files(run_dir.best_path) == of_then


def test_a_run_that_starts_again_has_no_best_before_its_first_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlplatform.train.trainer.PULSE_S", 0.0)
    run_dir = Trainer.create(small_spec("ppo", checkpoint={"every_steps": 128}), tmp_path).run_dir
    with pytest.raises(SystemExit, match="killed"):
        Trainer.open(run_dir, _Dies(64)).fit()
    assert run_dir.best_path.is_dir()
    with Trainer.open(run_dir).attempt():
        assert not run_dir.best_path.exists()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_amended_option_that_the_zip_holds_as_a_tensor_is_the_new_one(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path, "sac", algorithm={"ent_coef": 0.1})
    amended = small_spec("sac", algorithm={"ent_coef": 0.5}, env=_resolved(trainer), budget={"total_timesteps": 256})
    amend_run(trainer.run_dir, amended)
    again = Trainer.open(trainer.run_dir)
    again.fit()
    assert again.session.model.ent_coef_tensor.item() == 0.5  # type: ignore[attr-defined]


def _resolved(trainer: Trainer) -> dict[str, Any]:
    return trainer.spec.env.model_dump()


def test_a_budget_below_what_is_done_is_refused(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path)
    with pytest.raises(SpecError, match=r"must be at least the 192 steps that run .* has done, got 100"):
        amend_run(trainer.run_dir, small_spec("ppo", budget={"total_timesteps": 100}, env=_resolved(trainer)))
    assert trainer.run_dir.read().amendments == ()


def test_a_spec_edited_by_hand_is_refused(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path)
    edited = trainer.spec.model_copy(update={"seed": 99})
    trainer.run_dir.spec_path.write_text(dump_spec(edited))
    with pytest.raises(CheckpointError, match=r"was written for another spec than .*spec\.yaml"):
        Trainer.open(trainer.run_dir).fit()


def test_variables_of_the_environment_do_not_change_an_existing_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = _fit(tmp_path)
    monkeypatch.setenv("RLPLATFORM_SET__SEED", "99")
    assert Trainer.open(trainer.run_dir).spec == trainer.spec


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    trainer = Trainer.create(small_spec("ppo"), tmp_path)
    with trainer.run_dir.lock(), pytest.raises(RunStateError, match="is being trained by process"):
        Trainer.open(trainer.run_dir).fit()


def test_a_defect_in_the_environment_fails_the_run_with_its_reason(tmp_path: Path) -> None:
    spec = small_spec(
        "ppo",
        env={
            "id": "tests.unit.train.test_trainer:FailsAtStep",
            "state": "rebuild",
            "n_envs": 1,
            "kwargs": {"fails_at": 120},
        },
    )
    trainer = Trainer.create(spec, tmp_path)
    with pytest.raises(TrainingFailed, match="ZeroDivisionError: a defect of the environment"):
        trainer.fit()
    record = trainer.run_dir.read()
    assert (record.state, record.reason) == ("failed", "ZeroDivisionError: a defect of the environment")


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_training_that_diverges_fails_with_a_reason_and_keeps_no_ruined_policy(tmp_path: Path, algorithm: str) -> None:
    trainer = Trainer.create(small_spec(algorithm, algorithm={"learning_rate": 1e30}), tmp_path)
    with pytest.raises(AlgorithmError, match=r"Training diverged: `train/\w*loss` must stay a finite number, got"):
        trainer.fit()
    assert trainer.run_dir.read().state == "failed"
    assert not list(trainer.run_dir.checkpoints_path.glob("step_*"))


def test_nothing_is_written_when_the_algorithm_does_not_fit_the_environment(tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match="`dqn` needs a Discrete action space"):
        Trainer.create(small_spec("dqn", env={"id": "Pendulum-v1"}), tmp_path)
    assert not (tmp_path / names.RUNS_DIR).exists()


@pytest.mark.parametrize("observations", ["discrete", "dict"])
def test_normalising_observations_that_have_no_mean_is_refused_before_anything_is_written(
    tmp_path: Path, observations: str
) -> None:
    env = {"id": "tests.envs_for_tests:TinyEnv", "kwargs": {"observations": observations}, "normalize": {"obs": True}}
    with pytest.raises(SpecError, match=r"`env.normalize.obs` needs observations that are Box arrays, .* has "):
        Trainer.create(small_spec("ppo", env=env), tmp_path)
    assert not (tmp_path / names.RUNS_DIR).exists()


def test_fine_tuning_starts_from_the_other_run_s_networks(tmp_path: Path) -> None:
    first, _ = _fit(tmp_path, env={"normalize": {"obs": True}})
    tuned = small_spec(
        "ppo",
        env={"normalize": {"obs": True}},
        seed=8,
        init_from={"run": first.run_dir.id, "which": "last"},
        algorithm={"learning_rate": 1e-12},
        budget={"total_timesteps": 64},
    )
    second = Trainer.create(tuned, tmp_path)
    second.fit()
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    old = load_policy(newest_policy(first.run_dir), "ppo").model.predict(obs, deterministic=True)[0]
    new = load_policy(newest_policy(second.run_dir), "ppo").model.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(old, new)
    assert weights_sha256(newest_policy(first.run_dir)) != weights_sha256(newest_policy(second.run_dir))


def test_fine_tuning_refuses_another_network(tmp_path: Path) -> None:
    first, _ = _fit(tmp_path)
    tuned = small_spec("ppo", init_from={"run": first.run_dir.id}, algorithm={"policy_kwargs": {"net_arch": [8]}})
    with pytest.raises(CheckpointError, match="`init_from` names a policy whose network differs"):
        Trainer.create(tuned, tmp_path).fit()


@pytest.mark.parametrize("algorithm", ["dqn", "recurrent_ppo"])
def test_fine_tuning_refuses_another_algorithm_s_network(tmp_path: Path, algorithm: str) -> None:
    first, _ = _fit(tmp_path, budget={"total_timesteps": 64})
    tuned = small_spec(algorithm, init_from={"run": first.run_dir.id})
    with pytest.raises(CheckpointError, match=r"network differs from this spec's: only one of them has policy\."):
        Trainer.create(tuned, tmp_path).fit()


@pytest.mark.parametrize(("before", "after"), [({"obs": True}, {"reward": True}), ({}, {"obs": True})])
def test_fine_tuning_refuses_a_policy_that_saw_other_numbers(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    first, _ = _fit(tmp_path, budget={"total_timesteps": 64}, env={"normalize": before})
    tuned = small_spec("ppo", init_from={"run": first.run_dir.id}, env={"normalize": after})
    with pytest.raises(CheckpointError, match=r"trained with `env.normalize.obs: (true|false)`, this spec has"):
        Trainer.create(tuned, tmp_path).fit()


def test_what_is_fixed_cannot_be_amended(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path)
    with pytest.raises(SpecError, match=r"`env.n_envs` is fixed once a run has begun"):
        amend_run(trainer.run_dir, small_spec("ppo", env={**_resolved(trainer), "n_envs": 4}))
    assert trainer.run_dir.read().amendments == ()
    assert RunDir.open(tmp_path, trainer.run_dir.id) == trainer.run_dir


def test_weights_and_biases_gets_one_offline_run(tmp_path: Path) -> None:
    trainer, _ = _fit(tmp_path, tracking={"wandb": {"mode": "offline"}}, budget={"total_timesteps": 64})
    folders = list((trainer.run_dir.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 1
    assert folders[0].name.endswith(trainer.run_dir.id)
    assert list(folders[0].glob("*.wandb"))
