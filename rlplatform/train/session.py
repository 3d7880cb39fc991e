"""TrainingSession: one model, its environments and its counters; it owns the training loop.

`advance` collects one rollout and updates once. Between two calls the session is at a *rollout boundary*, the only
place where training is stopped, saved, evaluated or changed. `save` writes everything needed to go on, and a session
that is loaded goes on with the same bytes.

Environments come back in one of two ways. Where their inside can be restored (`env.state` is `replay` or `snapshot`),
any boundary can be saved. Where it cannot (`rebuild`), every scheduled checkpoint closes them and makes new ones from
a seed of that checkpoint, in an uninterrupted run just as in a resumed one, so that both agree; other boundaries are
not saved.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rlplatform import names
from rlplatform.algos.amend import apply_amendment
from rlplatform.algos.build import build_model
from rlplatform.algos.catalog import find_algorithm
from rlplatform.artifacts.checkpoint import FileRecord
from rlplatform.envs.make import make_vec_env
from rlplatform.envs.recorder import same_bits
from rlplatform.envs.replay import restore_envs, snapshot_envs
from rlplatform.errors import AlgorithmError, CheckpointError
from rlplatform.specs.algos import parse_algo
from rlplatform.specs.run import RunSpec
from rlplatform.train.loops import LOOPS
from rlplatform.train.metrics import LoggerAdapter, Metrics
from rlplatform.train.model_state import capture_model, restore_model
from rlplatform.train.normalizer import Normalizer
from rlplatform.train.policy_folder import save_policy
from rlplatform.train.replay_store import load_buffer, save_buffer
from rlplatform.train.seeding import capture_rng, derive_seed, restore_rng, seed_everything


class _Uninterrupted(BaseCallback):
    """The callback that SB3's collection loops ask for; it never stops them."""

    def _on_step(self) -> bool:
        return True


class TrainingSession:
    """One model, its environments and its counters, at a rollout boundary."""

    def __init__(self, spec: RunSpec, metrics: Metrics) -> None:
        """Build a session at step 0.

        Args:
            spec: The run, with no `auto` left in `env`.
            metrics: Where training metrics go.
        """
        torch.set_num_threads(spec.resources.torch_threads)
        # Checks of every distribution take an eighth of PPO's time; `advance` looks at the losses instead.
        torch.distributions.Distribution.set_default_validate_args(False)
        seed_everything(spec.seed)
        self.spec = spec
        self._advance = LOOPS[find_algorithm(spec.algorithm.name).family]
        self._logger_adapter = LoggerAdapter(metrics)
        self.model: BaseAlgorithm = build_model(
            spec.algorithm, self._make_envs(spec.seed), seed=spec.seed, device=resolve_device(spec)
        )
        self.model.set_logger(Logger(None, [self._logger_adapter]))
        total = spec.budget.total_timesteps
        _, self._callback = self.model._setup_learn(total, _Uninterrupted(), reset_num_timesteps=True)
        self._callback.on_training_start({}, {})

    # --- training ----------------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Environment steps done, over all environments."""
        return int(self.model.num_timesteps)

    @property
    def done(self) -> bool:
        """Whether the budget's steps are done."""
        return self.step >= self.spec.budget.total_timesteps

    @property
    def last_metrics(self) -> Mapping[str, float]:
        """The latest record of training metrics."""
        return self._logger_adapter.last

    @property
    def rollout_return(self) -> float | None:
        """Mean return of the latest training episodes (at most 100), on the reward the agent trains on."""
        episodes = self.model.ep_info_buffer
        return float(np.mean([episode["r"] for episode in episodes])) if episodes else None

    def advance(self) -> None:
        """Collect one rollout and update once.

        Raises:
            AlgorithmError: A loss is not a finite number: the networks are lost.
        """
        self._advance(self.model, self._callback)
        for key, value in self.model.logger.name_to_value.items():
            if key.endswith("loss") and not math.isfinite(value):
                raise AlgorithmError(
                    f"Training diverged: `{key}` must stay a finite number, got {value} at step {self.step}. "
                    "Lower `algorithm.learning_rate`, or normalise observations and rewards (`env.normalize`)."
                )

    def log(self) -> None:
        """Write a record of the metrics gathered since the last one."""
        self.model.dump_logs()

    def start_from(self, parameters: Mapping[str, Any], normalizer: Normalizer | None) -> None:
        """Take over another policy's networks and statistics; optimizers start afresh.

        Args:
            parameters: What `get_parameters` of a model of the same algorithm and network returned.
            normalizer: Its statistics of observations and returns.

        Raises:
            CheckpointError: The networks do not fit, or only one of the two policies sees normalised observations.
        """
        vec_normalize = self.model.get_vec_normalize_env()
        saw = normalizer is not None and bool(normalizer.observations)
        sees = vec_normalize is not None and vec_normalize.norm_obs
        if saw != sees:
            raise CheckpointError(
                f"`init_from` names a policy trained with `env.normalize.obs: {str(saw).lower()}`, this spec has "
                f"{str(sees).lower()}: its networks would see other numbers. Use the same."
            )
        networks = {key: value for key, value in parameters.items() if "optimizer" not in key}
        try:
            if other := _tensor_names(parameters) ^ _tensor_names(self.model.get_parameters()):
                raise ValueError(f"only one of them has {min(other)}")
            self.model.set_parameters(networks, exact_match=False, device=self.model.device)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"`init_from` names a policy whose network differs from this spec's: {error}. "
                "Use the same algorithm, `policy_kwargs` and environment spaces."
            ) from error
        if normalizer is not None and vec_normalize is not None:
            normalizer.write_to(vec_normalize)

    # --- environments ------------------------------------------------------------------------------------------------

    @property
    def rebuilds_envs(self) -> bool:
        """Whether environments are rebuilt at scheduled checkpoints, because their inside cannot be restored."""
        return self.spec.env.state == "rebuild"

    def rebuild_envs(self) -> None:
        """Close the environments and make new ones, seeded by the run's seed and the current step."""
        model, old = self.model, self.model.get_vec_normalize_env()
        assert model.env is not None
        statistics = Normalizer.of(old) if old is not None else None
        self._cut_episodes()
        model.env.close()
        model.set_env(self._make_envs(derive_seed(self.spec.seed, "rebuild", self.step)), force_reset=True)
        new = model.get_vec_normalize_env()
        if statistics is not None and new is not None:
            statistics.write_to(new)
        model._last_obs = model.env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
        if new is not None:
            model._last_original_obs = self._raw_obs()

    def _cut_episodes(self) -> None:
        """Mark that the replay buffer's episodes break off here: its next row does not follow from its last."""
        buffer = getattr(self.model, "replay_buffer", None)
        if buffer is None or buffer.size() == 0:
            return
        if buffer.optimize_memory_usage:  # It has no truncations, and its next observation is that of the next row.
            buffer.dones[buffer.pos - 1] = 1
        else:
            last = buffer.pos - 1
            buffer.timeouts[last] = np.maximum(buffer.timeouts[last], 1 - buffer.dones[last])

    def _raw_obs(self) -> Any:
        """Return the current observations before normalisation."""
        vec_normalize = self.model.get_vec_normalize_env()
        return self.model._last_obs if vec_normalize is None else vec_normalize.get_original_obs()

    def _make_envs(self, seed: int) -> VecEnv:
        envs = make_vec_env(self.spec.env, seed=seed)
        envs.seed(seed)
        normalize = self.spec.env.normalize
        if not (normalize.obs or normalize.reward):
            return envs
        gamma = normalize.gamma if normalize.gamma is not None else getattr(self.spec.algorithm, "gamma", 0.99)
        return VecNormalize(
            envs,
            norm_obs=normalize.obs,
            norm_reward=normalize.reward,
            clip_obs=normalize.clip_obs,
            clip_reward=normalize.clip_reward,
            gamma=gamma,
            epsilon=normalize.epsilon,
        )

    # --- saving and loading ------------------------------------------------------------------------------------------

    def save(self, folder: Path, *, donor: Path | None, extra: Mapping[str, Any]) -> Mapping[str, FileRecord]:
        """Write everything needed to go on into an existing folder.

        Args:
            folder: Where to write.
            donor: An older checkpoint whose unchanged replay chunks may be linked instead of written again.
            extra: State of the caller, given back by `load`.

        Returns:
            The records of linked files, whose hashes are known.
        """
        model = self.model
        assert model.env is not None
        save_policy(model, folder)
        state = {
            "model": capture_model(model),
            "rng": capture_rng(),
            "algorithm": self.spec.algorithm.model_dump(mode="json"),
            "envs": None if self.rebuilds_envs else snapshot_envs(model.env),
            "extra": dict(extra),
        }
        (folder / names.SESSION_FILE).write_bytes(pickle.dumps(state, protocol=pickle.HIGHEST_PROTOCOL))
        if not isinstance(model, OffPolicyAlgorithm) or model.replay_buffer is None:
            return {}
        rows_added = self.step // model.n_envs
        return save_buffer(model.replay_buffer, folder / names.REPLAY_DIR, rows_added=rows_added, donor=donor)

    def load(self, folder: Path) -> dict[str, Any]:
        """Go on from a checkpoint of this spec; call it on a session at step 0.

        Returns:
            The caller's state that `save` was given.

        Raises:
            CheckpointError: The environments did not come back as they were.
        """
        model = self.model
        assert model.env is not None
        state = pickle.loads((folder / names.SESSION_FILE).read_bytes())  # our own file, its hash verified
        attributes = state["model"]["attributes"]
        if self.rebuilds_envs:
            model.num_timesteps = attributes["num_timesteps"]
            self.rebuild_envs()
            saved = attributes["_last_obs" if model.get_vec_normalize_env() is None else "_last_original_obs"]
            if not same_bits(self._raw_obs(), saved):
                raise CheckpointError(
                    f"The environment {self.spec.env.id!r} starts otherwise than when the checkpoint was written, from "
                    "the same seed. Draw all its randomness from `self.np_random`; until then no resume is exact."
                )
        restore_model(model, str(folder / names.MODEL_FILE), state["model"])
        # A tensor in the zip may hold an option, such as SAC's fixed `ent_coef`, that was amended since.
        apply_amendment(model, parse_algo(state["algorithm"]), self.spec.algorithm)
        model._total_timesteps = self.spec.budget.total_timesteps
        vec_normalize = model.get_vec_normalize_env()
        normalizer = Normalizer.load(folder)
        if vec_normalize is not None and normalizer is not None:
            normalizer.write_to(vec_normalize)
        if not self.rebuilds_envs:
            restore_envs(model.env, state["envs"])
        if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
            load_buffer(model.replay_buffer, folder / names.REPLAY_DIR)
        restore_rng(state["rng"])
        return dict(state["extra"])

    def close(self) -> None:
        """Close the environments."""
        if self.model.env is not None:
            self.model.env.close()


def _tensor_names(parameters: Mapping[str, Any]) -> set[str]:
    return {f"{part}.{name}" for part, state in parameters.items() if "optimizer" not in part for name in state}


def resolve_device(spec: RunSpec) -> str:
    """Return the torch device of a run: what the spec names, else a booked and present GPU, else the CPU.

    Ray shows every GPU to an actor that booked none, so a run without booked GPUs never takes one by itself.
    """
    if spec.resources.device != "auto":
        return spec.resources.device
    return "cuda" if spec.resources.gpus > 0 and torch.cuda.is_available() else "cpu"
