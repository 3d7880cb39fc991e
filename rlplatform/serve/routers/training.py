"""/train and /training: the GRPO API. A training job is an experiment of the algorithm GRPO with one seed."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Body as BodyOf
from pydantic import Field

from rlplatform import names
from rlplatform.artifacts.run_state import FINISHED, RunState
from rlplatform.errors import ExperimentNotFound, RlPlatformError
from rlplatform.policy.registry import check_model_name
from rlplatform.serve.experiments import Experiments, NewExperiment, model_name
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.routers.experiment_schemas import Body, Hyperparameters, Seed, Timesteps
from rlplatform.serve.routers.params import ExperimentId, Who, errors
from rlplatform.store.experiments import Experiment
from rlplatform.store.metrics import read_metrics
from rlplatform.store.pages import MAX_PAGE

DEFAULT_ENVIRONMENT, DEFAULT_REWARD = "CartPole-v1", "optimized_cartpole"
_OPTIONS = ("learning_rate", "n_steps", "batch_size", "n_epochs")


class TrainingConfig(Body):
    """What a job trains. Everything is optional."""

    env_name: Annotated[str, Field(max_length=128)] = DEFAULT_ENVIRONMENT
    total_timesteps: Timesteps = 10_000
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    n_steps: Annotated[int, Field(ge=1, le=10**9)] = 32
    """Fewest steps of an update over all environments; an update takes whole episodes until it has them."""
    batch_size: Annotated[int, Field(ge=1, le=10**9)] = 64
    n_epochs: Annotated[int, Field(ge=1, le=10**6)] = 10
    reward_function_type: Annotated[str, Field(max_length=64)] | None = None
    """A name of GET /rewards. Left out: `optimized_cartpole` for CartPole, elsewhere the environment's own reward."""
    model_name: Annotated[str, Field(max_length=64)] | None = None
    """What the policy is published as. Left out: `grpo_model_` and the job's beginning."""
    seed: Seed = 0
    n_envs: Annotated[int, Field(ge=1, le=4096)] = 8
    hyperparameters: Hyperparameters = {}
    """More options of GRPO, such as `group_size`: see GET /algorithms."""


class StartedAnswer(Body):
    """A job that was taken."""

    job_id: str
    message: str
    config: dict[str, Any]
    """What it trains, with every default."""


class JobStatus(Body):
    """How a job is."""

    job_id: str
    status: RunState
    progress: float
    """Share of the steps that are done, in [0, 1]."""
    current_timesteps: int
    total_timesteps: int
    start_time: datetime
    end_time: datetime | None
    error_message: str | None
    """Why it failed."""
    metrics: dict[str, float]
    """What was measured last."""
    model_name: str


class JobsAnswer(Body):
    """Jobs, the newest first."""

    jobs: tuple[JobStatus, ...]


class StopAnswer(Body):
    """What follows from a request to stop."""

    message: str
    job_id: str


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._store = gateway, gateway.experiments
        self._changes = Experiments(gateway.experiments, gateway.audit, gateway.settings)

    def train(self, who: Who, body: Annotated[TrainingConfig | None, BodyOf()] = None) -> StartedAnswer:
        """Train GRPO; when it is done, its policy answers at /inference under the model's name."""
        config = body or TrainingConfig()
        if config.model_name is not None:
            check_model_name(config.model_name)
        made = self._changes.create(_asked(config), who)
        try:
            self._changes.start(made.id, who)
        except RlPlatformError:  # Such as a limit: nobody was told of the job, so nothing of it is left.
            self._store.delete(made.id)
            raise
        shown = config.model_dump(mode="json") | {
            "reward_function_type": made.spec["env"]["reward"],
            "model_name": model_name(made),
        }
        return StartedAnswer(job_id=made.id, message="Training started", config=shown)

    async def status(self, job_id: ExperimentId) -> JobStatus:
        """Return how a job is."""
        return (await self._statuses([await asyncio.to_thread(self._job, job_id)]))[0]

    async def jobs(self) -> JobsAnswer:
        """Return the newest jobs."""
        page = await asyncio.to_thread(lambda: self._store.list(kind="grpo", limit=MAX_PAGE))
        return JobsAnswer(jobs=tuple(await self._statuses(page.items)))

    def stop(self, job_id: ExperimentId, who: Who) -> StopAnswer:
        """Stop a job; it writes a checkpoint first."""
        job = self._job(job_id)
        if job.status in FINISHED:
            return StopAnswer(message=f"Job is not running (status: {job.status})", job_id=job_id)
        self._changes.stop(job_id, who)
        return StopAnswer(message="Training job stopped", job_id=job_id)

    def _job(self, job_id: str) -> Experiment:
        found = self._store.get(job_id)
        if found.kind != "grpo":
            raise ExperimentNotFound(f"There is no training job {job_id!r}. List them with GET /training/jobs.")
        return found

    async def _statuses(self, jobs: Any) -> list[JobStatus]:
        runs = {job.id: await asyncio.to_thread(self._store.runs, job.id) for job in jobs if job.run_ids}
        paths = [found[0].run_path for found in runs.values()]
        known = dict(zip(runs, await self._gateway.runs.statuses(paths) if paths else (), strict=True))
        answers = []
        for job in jobs:
            total = job.spec["budget"]["total_timesteps"]
            step = known[job.id].step if job.id in known else 0
            measured = await asyncio.to_thread(_latest, runs[job.id][0].run_path) if job.id in runs else {}
            answers.append(
                JobStatus(
                    job_id=job.id,
                    status=job.status,
                    progress=1.0 if job.status == "completed" else min(1.0, step / total),
                    current_timesteps=step,
                    total_timesteps=total,
                    start_time=job.started_at or job.created_at,
                    end_time=job.ended_at,
                    error_message=job.reason if job.status == "failed" else None,
                    metrics=measured,
                    model_name=model_name(job),
                )
            )
        return answers


def training_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router, routes = APIRouter(tags=["training jobs"]), _Routes(gateway)
    add = router.add_api_route
    add("/train", routes.train, methods=["POST"], responses=errors())
    add("/training/jobs", routes.jobs, methods=["GET"], responses=errors())
    add("/training/{job_id}/status", routes.status, methods=["GET"], responses=errors(404))
    add("/training/{job_id}/stop", routes.stop, methods=["POST"], responses=errors(404, 409))
    return router


def _asked(config: TrainingConfig) -> NewExperiment:
    reward = config.reward_function_type
    if reward is None and config.env_name == DEFAULT_ENVIRONMENT:
        reward = DEFAULT_REWARD
    options = {name: getattr(config, name) for name in _OPTIONS}
    return NewExperiment(
        name=config.model_name or "grpo",
        algorithm="grpo",
        environment=config.env_name,
        hyperparameters={**options, **config.hyperparameters},
        seeds=(config.seed,),
        total_timesteps=config.total_timesteps,
        parts={"env": {"n_envs": config.n_envs, "reward": reward}},
        kind="grpo",
        model_name=config.model_name,
    )


def _latest(run_path: Any) -> dict[str, float]:
    records = read_metrics(run_path)
    latest: dict[str, float] = {}
    for record in records:
        latest |= {key: value for key, value in record.items() if key != names.STEP and value is not None}
    return latest
