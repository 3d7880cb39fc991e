"""A run that is left at a boundary and taken up again ends with the bytes of one that never was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from rlplatform import names
from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.specs.run import RunSpec
from rlplatform.train.compare import Comparison, compare_runs
from rlplatform.train.metrics import Metrics
from rlplatform.train.progress import Progress
from rlplatform.train.session import TrainingSession
from rlplatform.train.trainer import Trainer
from tests.unit.train.small_specs import ALGORITHMS, small_spec


class StopAt:
    """Stops a trainer in the first boundary at or after a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.trainer: Trainer

    def on_progress(self, progress: Progress) -> None:
        if progress.step >= self.step:
            self.trainer.request_stop()


def _train(spec: RunSpec, home: Path, stops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> Trainer:
    monkeypatch.setattr("rlplatform.train.trainer.PULSE_S", 0.0)
    trainer = Trainer.create(spec, home)
    run_dir = trainer.run_dir
    for stop in stops:
        listener = StopAt(stop)
        trainer = Trainer.open(run_dir, listener)
        listener.trainer = trainer
        assert trainer.fit().state == "stopped"
        # Nothing of the first attempt may help the second.
        np.random.seed(0)
        torch.manual_seed(0)
    trainer = Trainer.open(run_dir)
    assert trainer.fit().state == "completed"
    return trainer


def _assert_same(spec: RunSpec, tmp_path: Path, stops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _train(spec, tmp_path / "whole", (), monkeypatch)
    parts = _train(spec, tmp_path / "parts", stops, monkeypatch)
    assert compare_runs(parts.run_dir, whole.run_dir) == Comparison(True, True, "")
    assert parts.run_dir.evaluations_path.read_bytes() == whole.run_dir.evaluations_path.read_bytes()
    best, expected = (trainer.run_dir.best_path / names.BEST_FILE for trainer in (parts, whole))
    assert best.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_resumes_exactly(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _assert_same(small_spec(algorithm), tmp_path, (100,), monkeypatch)


VARIANTS: dict[str, RunSpec] = {
    "vector": small_spec("ppo", env={"backend": "vector"}),
    "subproc": small_spec("ppo", env={"backend": "subproc"}),
    "rebuild": small_spec("ppo", env={"id": "BipedalWalker-v3"}),
    "normalised observations and rewards": small_spec("ppo", env={"normalize": {"obs": True, "reward": True}}),
    "normalised replay": small_spec("sac", env={"normalize": {"obs": True, "reward": True}}),
    "normalised rebuild": small_spec("ppo", env={"id": "BipedalWalker-v3", "normalize": {"obs": True, "reward": True}}),
    "gSDE on policy": small_spec("ppo", algorithm={"use_sde": True, "sde_sample_freq": 4}, env={"id": "Pendulum-v1"}),
    "gSDE off policy": small_spec("sac", algorithm={"use_sde": True}),
    "n-step returns": small_spec("dqn", algorithm={"n_steps": 3}),
    "n-step returns on rebuilt environments": small_spec("dqn", algorithm={"n_steps": 3}, env={"state": "rebuild"}),
    "one step a rollout": small_spec("sac", algorithm={"train_freq": 1}),
    "GRPO with a reference and same starts": small_spec(
        "grpo",
        algorithm={"n_groups": 2, "group_size": 2, "same_start": True, "kl_coef": 0.1, "reference_interval": 2},
        budget={"total_timesteps": 600},
    ),
    "GRPO on copies": small_spec(
        "grpo",
        algorithm={"advantage": "actions", "action_horizon": 3, "group_size": 2},
        env={"reward": "optimized_cartpole"},
        budget={"total_timesteps": 1_200},
    ),
    "GRPO rebuild": small_spec(
        "grpo",
        algorithm={"group_size": 2, "gamma": 0.9},
        env={"id": "BipedalWalker-v3", "max_episode_steps": 20, "normalize": {"obs": True}},
    ),
    "reward function and wrapper": small_spec("dqn", env={"reward": "optimized_cartpole", "wrappers": ["time_aware"]}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_state_resumes_exactly(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _assert_same(VARIANTS[variant], tmp_path, (48, 110), monkeypatch)


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec("dqn")
    whole = _train(spec, tmp_path / "whole", (), monkeypatch)
    trainer = Trainer.create(spec, tmp_path / "parts")
    listener = StopAt(150)
    first = Trainer.open(trainer.run_dir, listener)
    listener.trainer = first
    monkeypatch.setattr("rlplatform.train.trainer.PULSE_S", 0.0)
    first.fit()
    _flip_a_byte(max(trainer.run_dir.checkpoints_path.glob("step_*")) / names.SESSION_FILE)
    second = Trainer.open(trainer.run_dir)
    second.fit()
    assert compare_runs(second.run_dir, whole.run_dir) == Comparison(True, True, "")


def test_a_damaged_checkpoint_is_written_anew_when_its_step_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec("ppo", env={"state": "rebuild"}, budget={"total_timesteps": 320})
    whole = _train(spec, tmp_path / "whole", (), monkeypatch)
    parts = Trainer.create(spec, tmp_path / "parts")
    for stop in (192, 320, 10**9):
        parts = Trainer.open(parts.run_dir, listener := StopAt(stop))
        listener.trainer = parts
        parts.fit()
        if stop < 10**9:
            _flip_a_byte(max(parts.run_dir.checkpoints_path.glob("step_*")) / names.SESSION_FILE)
    assert compare_runs(parts.run_dir, whole.run_dir) == Comparison(True, True, "")
    store = CheckpointStore(parts.run_dir.checkpoints_path, 3)
    for checkpoint in store.all():
        store.verify(checkpoint)


def test_rebuilding_environments_ends_the_replay_buffer_s_episodes() -> None:
    session = TrainingSession(small_spec("dqn", env={"backend": "sync", "state": "rebuild"}), Metrics())
    with closing(session):
        session.advance()
        buffer = session.model.replay_buffer  # type: ignore[attr-defined]
        before = buffer.timeouts.sum()
        session.rebuild_envs()
        np.testing.assert_array_equal(np.maximum(buffer.dones, buffer.timeouts)[buffer.pos - 1], [1, 1])
        assert buffer.timeouts.sum() <= before + 2
