"""/experiments: the RL Agent Training API, and what its document leaves open."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query, Response

from rlplatform.algos.catalog import find_algorithm
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.run_state import FINISHED, RunState
from rlplatform.errors import Conflict, RunNotFound
from rlplatform.serve.auth import Principal
from rlplatform.serve.documents import find_environment
from rlplatform.serve.experiments import Experiments, NewExperiment
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.results import evaluated, result_of, run_of
from rlplatform.serve.routers.experiment_schemas import (
    EvaluationAnswer,
    EvaluationRequest,
    ExperimentAnswer,
    ExperimentChange,
    ExperimentDetail,
    ExperimentRequest,
    ResultsAnswer,
    ResumeRequest,
    RunProgressAnswer,
    TrainAnswer,
)
from rlplatform.serve.routers.params import ExperimentId, Who, errors
from rlplatform.store.experiments import Experiment
from rlplatform.store.pages import MAX_PAGE

Status = Literal["created", "queued", "running", "paused", "completed", "stopped", "failed", "cancelled"]
Order = Literal["created_at", "-created_at", "updated_at", "-updated_at", "name", "-name", "status", "-status"]
WaitS = Annotated[float, Query(ge=0, le=30, description="Seconds to wait for what is asked to be carried out.")]
_POLL_S = 0.1


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._store = gateway.experiments
        self._changes = Experiments(gateway.experiments, gateway.audit, gateway.settings)

    def create(self, body: ExperimentRequest, who: Who) -> ExperimentAnswer:
        """Add an experiment. It trains once it is told to."""
        asked = NewExperiment(
            name=body.name,
            algorithm=body.algorithm,
            environment=body.environment,
            hyperparameters=body.hyperparameters,
            seeds=body.seeds or (body.seed,),
            total_timesteps=body.total_timesteps,
            parts=body.spec,
            description=body.description,
            hypothesis=body.hypothesis,
        )
        return ExperimentAnswer.of(self._changes.create(asked, who))

    def find(
        self,
        response: Response,
        status: Status | None = None,
        status_filter: Status | None = None,
        algorithm: Annotated[str | None, Query(max_length=64)] = None,
        environment: Annotated[str | None, Query(max_length=128)] = None,
        name: Annotated[str | None, Query(max_length=100, description="Part of the name.")] = None,
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        order: Order = "-created_at",
    ) -> list[ExperimentAnswer]:
        """Return one page of the experiments; the header `X-Total-Count` says how many there are."""
        wanted = status or status_filter
        state: RunState | None = "stopped" if wanted == "cancelled" else wanted
        page = self._store.list(
            status=state,
            algorithm=None if algorithm is None else find_algorithm(algorithm).name,
            env=None if environment is None else find_environment(environment).id,
            name=name,
            offset=offset,
            limit=limit,
            order=order,
        )
        response.headers["X-Total-Count"] = str(page.total)
        return [ExperimentAnswer.of(found) for found in page.items]

    async def get(self, id: ExperimentId) -> ExperimentDetail:
        """Return an experiment, and how far its runs are."""
        found = await asyncio.to_thread(self._store.get, id)
        runs = await asyncio.to_thread(self._store.runs, id)
        statuses = await self._gateway.runs.statuses([run.run_path for run in runs]) if runs else []
        progress = [
            RunProgressAnswer(
                run_id=run.run_id,
                seed=run.seed,
                status=status.state,
                timesteps=status.step,
                total_timesteps=status.total,
                progress=status.progress,
            )
            for run, status in zip(runs, statuses, strict=True)
        ]
        mean = sum(one.progress for one in progress) / len(found.seeds)
        return ExperimentDetail(**dict(ExperimentAnswer.of(found)), progress=mean, runs=tuple(progress))

    async def change(self, id: ExperimentId, body: ExperimentChange, who: Who, wait_s: WaitS = 5.0) -> ExperimentAnswer:
        """Start, pause, resume or stop an experiment, or change its hyper-parameters; both together if they fit.

        Pausing waits for a rollout's end and writes a checkpoint. What is not done within `wait_s` goes on being
        done, and `wanted` of the answer says so.
        """
        changed = await asyncio.to_thread(self._change, id, body, who)
        return ExperimentAnswer.of(await self._settled(changed, wait_s))

    def _change(self, id: str, body: ExperimentChange, who: Principal) -> Experiment:
        options = body.hyperparameters
        if body.status == "paused":
            return self._changes.pause(id, who, options)
        if body.status == "cancelled":
            return self._changes.stop(id, who)
        if options:
            self._changes.change_hyperparameters(id, options, who)
        if body.status == "running":
            begin = self._changes.start if self._store.get(id).status == "created" else self._changes.resume
            return begin(id, who)
        return self._store.get(id)

    async def _settled(self, changed: Experiment, wait_s: float) -> Experiment:
        """Return an experiment once it is paused or stopped as it was asked to, or the time is over."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while changed.wanted in {"pause", "stop"} and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_S)
            changed = await asyncio.to_thread(self._store.get, changed.id)
        return changed

    def delete(self, id: ExperimentId, who: Who) -> TrainAnswer:
        """Forget an experiment that does not train. Its runs' folders, and models published from them, stay."""
        found = self._store.get(id)
        self._changes.delete(id, who)
        return TrainAnswer(experiment_id=id, status=found.status, message="The experiment is deleted.")

    def train(self, id: ExperimentId, who: Who) -> TrainAnswer:
        """Start an experiment's training."""
        started = self._changes.start(id, who)
        return TrainAnswer(experiment_id=id, status=started.status, message="Training is queued.")

    async def stop(self, id: ExperimentId, who: Who, wait_s: WaitS = 5.0) -> TrainAnswer:
        """Stop an experiment, with a checkpoint from which it can be resumed."""
        changed = await self._settled(await asyncio.to_thread(self._changes.stop, id, who), wait_s)
        message = "Training is being stopped." if changed.wanted else "Training is stopped."
        return TrainAnswer(experiment_id=id, status=changed.status, message=message)

    def resume(self, id: ExperimentId, who: Who, body: Annotated[ResumeRequest | None, Body()] = None) -> TrainAnswer:
        """Go on with an experiment that is paused or over, exactly where it was."""
        steps = 0 if body is None else body.additional_timesteps
        resumed = self._changes.resume(id, who, steps)
        return TrainAnswer(experiment_id=id, status=resumed.status, message="Training is queued again.")

    def results(self, id: ExperimentId) -> ResultsAnswer:
        """Return what came of an experiment that is over."""
        found = self._store.get(id)
        if found.status not in FINISHED:
            raise Conflict(f"Experiment {id} has no results yet: it is {found.status}. Wait until it is over.")
        return result_of(found, self._store.runs(id), self._gateway.registry)

    async def evaluate(
        self, id: ExperimentId, body: Annotated[EvaluationRequest | None, Body()] = None
    ) -> EvaluationAnswer:
        """Play whole episodes with an experiment's policy, on the environment's true return."""
        asked = body or EvaluationRequest()
        run = run_of(await asyncio.to_thread(self._store.runs, id), asked.run_seed)
        if run is None or not RunDir(run.run_path).run_path.exists():
            raise RunNotFound(f"Experiment {id} has no such run yet. Train it first.")
        measured = await self._gateway.runs.evaluate(
            run.run_path, asked.which, asked.n_episodes, asked.seed, deterministic=asked.deterministic
        )
        return EvaluationAnswer(
            **dict(evaluated(measured)),
            experiment_id=id,
            run_id=run.run_id,
            timesteps=measured["step"],
            rewards=measured["returns"],
            lengths=measured["lengths"],
        )


def experiments_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router, routes = APIRouter(prefix="/experiments", tags=["experiments"]), _Routes(gateway)
    add = router.add_api_route
    add("", routes.create, methods=["POST"], status_code=201, responses=errors())
    add("", routes.find, methods=["GET"], responses=errors())
    one = "/{id}"
    add(one, routes.get, methods=["GET"], responses=errors(404))
    add(one, routes.change, methods=["PUT"], responses=errors(404, 409))
    add(one, routes.delete, methods=["DELETE"], responses=errors(404, 409))
    add(f"{one}/train", routes.train, methods=["POST"], responses=errors(404, 409))
    add(f"{one}/stop", routes.stop, methods=["POST"], responses=errors(404, 409))
    add(f"{one}/resume", routes.resume, methods=["POST"], responses=errors(404, 409))
    add(f"{one}/results", routes.results, methods=["GET"], responses=errors(404, 409))
    add(f"{one}/evaluate", routes.evaluate, methods=["POST"], responses=errors(404, 409))
    return router
