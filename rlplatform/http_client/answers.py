"""What the service answers, as the client returns it. Fields that a newer service adds are left out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Health(msgspec.Struct, frozen=True):
    """Whether the service works, and how much it has to do."""

    status: str
    version: str
    uptime_seconds: float
    active_experiments: int
    active_jobs: int
    loaded_models: int


class EnvironmentInfo(msgspec.Struct, frozen=True):
    """An environment that can be trained on."""

    name: str
    description: str
    observation_space: dict[str, Any] | None = None
    action_space: dict[str, Any] | None = None


class AlgorithmInfo(msgspec.Struct, frozen=True):
    """An algorithm, and the hyper-parameters that it has where none are given."""

    name: str
    description: str
    default_hyperparameters: dict[str, Any]


class RunProgress(msgspec.Struct, frozen=True):
    """How far one run is."""

    run_id: str
    seed: int
    status: str
    timesteps: int
    total_timesteps: int
    progress: float
    """From 0 to 1."""


class Experiment(msgspec.Struct, frozen=True):
    """An experiment: what is trained, and how far that is."""

    id: str
    name: str
    status: str
    """`created`, `queued`, `running`, `paused`, `completed`, `stopped` or `failed`."""
    algorithm: str
    environment: str
    hyperparameters: dict[str, Any]
    """As they were given."""
    seeds: tuple[int, ...]
    total_timesteps: int
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    wanted: str | None = None
    """What was asked of it and is not carried out yet."""
    reason: str | None = None
    """Why it is in this state, in words."""
    description: str = ""
    hypothesis: str = ""
    warnings: tuple[str, ...] = ()
    """What was understood otherwise than it was written."""
    progress: float | None = None
    """From 0 to 1, over all runs. None in lists."""
    runs: tuple[RunProgress, ...] = ()
    """Empty in lists."""

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing changes until somebody asks for it: it has ended, is paused, or has not begun."""
        return self.status not in ("queued", "running")


class Metrics(msgspec.Struct, frozen=True):
    """What one run has measured."""

    experiment_id: str
    run_id: str | None
    """None: it has no runs yet."""
    metrics: tuple[dict[str, Any], ...]
    """By ascending `timestep`: `reward`, and everything else by its key."""
    summary: dict[str, Any]


class Evaluation(msgspec.Struct, frozen=True):
    """An evaluation on the environment's true return."""

    avg_reward: float
    std_reward: float
    avg_length: float
    n_episodes: int
    ci_low: float
    """Lower end of the 95 % interval of the mean."""
    ci_high: float
    success_rate: float | None = None
    rewards: tuple[float, ...] = ()
    """Episode by episode, where one was asked for."""
    lengths: tuple[int, ...] = ()


class RunResult(msgspec.Struct, frozen=True):
    """What came of one run."""

    run_id: str
    seed: int
    status: str
    timesteps: int
    best_reward: float | None = None
    final_evaluation: Evaluation | None = None
    model: str | None = None
    """The version that it was published as."""


class Results(msgspec.Struct, frozen=True):
    """What came of an experiment."""

    experiment_id: str
    status: str
    final_evaluation: Evaluation | None = None
    """Of the best run."""
    model: str | None = None
    """The published version, to be asked by `predict`."""
    runs: tuple[RunResult, ...] = ()


class TrainingJob(msgspec.Struct, frozen=True):
    """A training job of the GRPO API."""

    job_id: str
    status: str
    progress: float
    """From 0 to 1."""
    current_timesteps: int = 0
    total_timesteps: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    error_message: str | None = None
    metrics: dict[str, Any] = {}
    model_name: str | None = None
    """What the policy is published as."""

    @property
    def is_at_rest(self) -> bool:
        """Whether it has ended or is paused."""
        return self.status not in ("queued", "running")


class Model(msgspec.Struct, frozen=True):
    """A name in the registry."""

    name: str
    status: str
    """`loaded` when the replica that answered holds a version of it in memory, else `saved`."""
    versions: tuple[int, ...]
    aliases: dict[str, int]


class ModelVersion(msgspec.Struct, frozen=True):
    """A published version of a model."""

    model: str
    version: int
    reference: str
    """`name@number`, to be asked by `predict`."""
    published_at: datetime
    environment: str | None = None
    run_id: str | None = None
    metrics: dict[str, float] = {}


class AliasMove(msgspec.Struct, frozen=True):
    """Where an alias points now."""

    model: str
    alias: str
    version: int
    reason: str | None = None
    """What the gate found. None without it."""


class Deployment(msgspec.Struct, frozen=True):
    """A model's replicas of its own, as they are wanted and as they are."""

    model: str
    reference: str
    """What the bare name stands for there."""
    path: str
    """Where it answers: `Client(url + path)`."""
    replicas: int
    cpus: float
    status: str
    """`deploying`, `running`, `unhealthy`, `deploy_failed`, `deleting` or `missing`."""
    message: str
    running_replicas: int


class Prediction(msgspec.Struct, frozen=True):
    """A policy's answer. For a batch, each field has one entry for each observation."""

    action: Any
    action_probs: Any = None
    value: Any = None
    state: str | None = None
    """Recurrent state, of policies with memory, to be given back with the next observation."""
    model: str | None = None
    """`name@number` of the version that answered."""


class TensorInfo(msgspec.Struct, frozen=True):
    """A tensor that a model takes or gives. -1 in its shape is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model as the Open Inference Protocol describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
