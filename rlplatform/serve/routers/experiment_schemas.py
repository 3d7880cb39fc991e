"""The bodies of /experiments, in the RL Agent Training API's words; what its document does not know is optional."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from rlplatform.artifacts.run_state import RunState
from rlplatform.serve.documents import shown_algorithm
from rlplatform.serve.experiments import GIVEN, WARNINGS, model_name
from rlplatform.store.experiments import Experiment

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Timesteps = Annotated[int, Field(ge=1, le=10**12)]
MAX_CHARS = 65_536
"""Of the JSON of what has no form of its own: it is kept with the experiment, and comes with every answer about it."""


def _plain(value: Any) -> Any:
    """Refuse what JSON has and databases do not: numbers that are not finite, half characters, null characters."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(text) > MAX_CHARS:
        raise ValueError(f"JSON must have at most {MAX_CHARS:,} characters here, got {len(text):,}. Leave some out")
    text.encode()
    if "\\u0000" in text:
        raise ValueError("Text must have no null characters")
    return value


Hyperparameters = Annotated[dict[str, Any], AfterValidator(_plain)]


class Body(BaseModel):
    """A body; the text under each field is its documentation."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, allow_inf_nan=False)


class ExperimentRequest(Body):
    """What is to be trained."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    """For people; need not be unique. The trained policy is published under it."""
    algorithm: Annotated[str, Field(max_length=64, examples=["PPO"])]
    """A name of GET /algorithms."""
    environment: Annotated[str, Field(max_length=128, examples=["CartPole-v1"])]
    """A name of GET /environments; the `-v2` of the landers stands for `-v3`."""
    hyperparameters: Hyperparameters = {}
    """The algorithm's options, in Stable-Baselines3's spelling; also `n_envs` and `total_timesteps`."""
    seed: Seed = 42
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=32)] | None = None
    """One run for each. Left out: only `seed`."""
    total_timesteps: Timesteps | None = None
    """Environment steps of each run. Left out: 100,000."""
    description: Annotated[str, Field(max_length=1000)] = ""
    hypothesis: Annotated[str, Field(max_length=500)] = ""
    spec: Annotated[dict[str, dict[str, Any]], AfterValidator(_plain)] = {}
    """Other parts of a run's spec, as its YAML file has them: `env`, `budget`, `evaluation`, `checkpoint`,
    `early_stop`, `resources`, `tracking`."""


class ExperimentChange(Body):
    """What is to change."""

    status: Literal["running", "paused", "cancelled"] | None = None
    """`running` starts or resumes; `paused` writes checkpoints and gives resources back; `cancelled` stops."""
    hyperparameters: Hyperparameters | None = None
    """Options to change: any while created, while paused those that a live model can take."""


class ResumeRequest(Body):
    """How to go on."""

    additional_timesteps: Annotated[int, Field(ge=0, le=10**12)] = 0
    """Environment steps to add to each run's budget."""


class ExperimentAnswer(Body):
    """An experiment."""

    id: str
    name: str
    status: RunState
    wanted: Literal["train", "pause", "stop"] | None
    """What was asked of it and is not carried out yet."""
    reason: str | None
    """Why it is in this state, in words."""
    algorithm: str
    environment: str
    hyperparameters: Hyperparameters
    """As they were given."""
    seed: int
    seeds: tuple[int, ...]
    total_timesteps: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    description: str
    hypothesis: str
    kind: Literal["experiment", "grpo"]
    owner: str | None
    run_ids: tuple[str, ...]
    model_name: str
    """What its policy is published as."""
    warnings: tuple[str, ...]
    """What was understood otherwise than it was written."""

    @classmethod
    def of(cls, found: Experiment) -> ExperimentAnswer:
        """Return what is told of an experiment."""
        return cls(
            id=found.id,
            name=found.name,
            status=found.status,
            wanted=found.wanted,
            reason=found.reason,
            algorithm=shown_algorithm(found.algorithm),
            environment=found.env_id,
            hyperparameters=found.legacy.get(GIVEN, {}),
            seed=found.seeds[0],
            seeds=found.seeds,
            total_timesteps=found.spec["budget"]["total_timesteps"],
            created_at=found.created_at,
            updated_at=found.updated_at,
            started_at=found.started_at,
            completed_at=found.ended_at,
            description=found.description,
            hypothesis=found.hypothesis,
            kind=found.kind,
            owner=found.owner,
            run_ids=found.run_ids,
            model_name=model_name(found),
            warnings=tuple(found.legacy.get(WARNINGS, ())),
        )


class RunProgressAnswer(Body):
    """How far one run is."""

    run_id: str
    seed: int
    status: str
    timesteps: int
    total_timesteps: int
    progress: float
    """Share of the steps that are done, in [0, 1]."""


class ExperimentDetail(ExperimentAnswer):
    """An experiment, and how far its runs are."""

    progress: float
    """Mean share of the steps that are done, in [0, 1]."""
    runs: tuple[RunProgressAnswer, ...]


class TrainAnswer(Body):
    """What follows from a request to train, resume or stop."""

    experiment_id: str
    status: RunState
    message: str


class MetricsSummary(Body):
    """What the metrics come to; empty fields before the first episode ends."""

    avg_reward_last_100: float | None
    """Mean return of the latest training episodes, at most 100, on the reward that is trained on."""
    best_reward: float | None
    """Best mean return: of an evaluation, or before the first one of the latest training episodes."""
    total_timesteps: int
    last_updated: datetime | None
    """When something was measured last."""


class MetricsAnswer(Body):
    """What one run has measured."""

    experiment_id: str
    run_id: str | None
    """None: it has no runs yet."""
    seed: int
    metrics: tuple[dict[str, Any], ...]
    """By ascending `timestep`: `reward`, the mean return of the latest training episodes, and the rest by its keys."""
    summary: MetricsSummary


class Evaluated(Body):
    """An evaluation on the environment's true return."""

    avg_reward: float
    std_reward: float
    avg_length: float
    n_episodes: int
    ci_low: float
    """Lower end of the 95 % interval of the mean."""
    ci_high: float
    success_rate: float | None


class RunResultAnswer(Body):
    """What came of one run."""

    run_id: str
    seed: int
    status: str
    reason: str | None
    timesteps: int
    best_reward: float | None
    """Best mean return of an evaluation during training."""
    final_evaluation: Evaluated | None
    """Of the last policy, on episodes used nowhere else."""
    model: str | None
    """The version that it was published as."""


class ResultsAnswer(Body):
    """What came of an experiment."""

    experiment_id: str
    status: RunState
    final_evaluation: Evaluated | None
    """Of the best run."""
    model: str | None
    """The published version, to be asked by /inference."""
    model_path: str | None
    """Where its bundle can be got."""
    graph_path: str | None
    """Where TensorBoard's files can be got."""
    video_path: str | None = None
    """None: no videos are made."""
    runs: tuple[RunResultAnswer, ...]


class EvaluationRequest(Body):
    """What is to be measured."""

    n_episodes: Annotated[int, Field(ge=1, le=100)] = 10
    seed: Seed = 0
    """Of the episodes: the same seed gives every policy the same ones."""
    deterministic: bool = True
    which: Literal["best", "last"] = "best"
    run_seed: Seed | None = None
    """The run with this seed. Left out: the best one."""


class EvaluationAnswer(Evaluated):
    """An evaluation of a policy, episode by episode."""

    experiment_id: str
    run_id: str
    timesteps: int | None
    """For how many steps the policy was trained."""
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
