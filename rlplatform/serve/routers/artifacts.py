"""/experiments/{id}/artifacts: what training leaves: the policy, TensorBoard's files, the spec."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.errors import ModelNotFound, RunNotFound
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.results import published
from rlplatform.serve.routers.experiment_schemas import Body
from rlplatform.serve.routers.models import ZIP_ANSWER, bundle_zip, zip_file
from rlplatform.serve.routers.params import ExperimentId, errors
from rlplatform.serve.uploads import pack_folder
from rlplatform.specs.load import dump_spec
from rlplatform.specs.run import RunSpec

Seed = Annotated[int | None, Query(ge=0, description="The run with this seed. Left out: the first one.")]
_YAML: dict[int | str, dict[str, Any]] = {
    200: {"description": "YAML.", "content": {"application/yaml": {"schema": {"type": "string"}}}}
}


class ArtifactsAnswer(Body):
    """Where an experiment's artifacts are; null for what there is not."""

    model: str | None
    """The published policy's bundle, a zip."""
    tensorboard: str | None
    """TensorBoard's files, a zip."""
    spec: str
    """What is trained, in YAML."""


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._store, self._registry = gateway.experiments, gateway.registry

    def artifacts(self, id: ExperimentId) -> ArtifactsAnswer:
        """Return which artifacts there are."""
        base, runs = f"/experiments/{self._store.get(id).id}/artifacts", self._store.runs(id)
        has_graphs = any(any(RunDir(run.run_path).tb_path.glob("*")) for run in runs)
        return ArtifactsAnswer(
            model=f"{base}/model" if published(runs, self._registry) else None,
            tensorboard=f"{base}/tensorboard" if has_graphs else None,
            spec=f"{base}/spec",
        )

    def model(self, id: ExperimentId) -> FileResponse:
        """Return the bundle of the policy that was published last."""
        version = published(self._store.runs(id), self._registry)
        if version is None:
            raise ModelNotFound(f"Experiment {id} has no published policy. One is published when it is complete.")
        return bundle_zip(version)

    def tensorboard(self, id: ExperimentId, seed: Seed = None) -> FileResponse:
        """Return TensorBoard's files of a run."""
        run = self._run(id, seed)
        if run is None or not run.tb_path.is_dir():
            raise RunNotFound(f"Experiment {id} has no TensorBoard files of that run yet. Train it first.")
        return zip_file(f"{run.id}-tb.zip", lambda archive: pack_folder(run.tb_path, archive))

    def spec(self, id: ExperimentId, seed: Seed = None) -> PlainTextResponse:
        """Return what is trained: a run's spec, or the experiment's while it has no runs."""
        experiment, run = self._store.get(id), self._run(id, seed)
        spec = RunSpec.model_validate(experiment.spec) if run is None else run.spec()
        return PlainTextResponse(dump_spec(spec), media_type="application/yaml")

    def _run(self, id: str, seed: int | None) -> RunDir | None:
        runs = self._store.runs(id)
        found = next((run for run in runs if seed is None or run.seed == seed), None)
        if found is None and (seed is not None and seed not in self._store.get(id).seeds):
            raise RunNotFound(f"Experiment {id} has no seed {seed}.")
        return None if found is None else RunDir(found.run_path)


def artifacts_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router, routes = APIRouter(prefix="/experiments/{id}/artifacts", tags=["experiments"]), _Routes(gateway)
    add = router.add_api_route
    add("", routes.artifacts, methods=["GET"], responses=errors(404))
    answers = ZIP_ANSWER | errors(404)
    add("/model", routes.model, methods=["GET"], responses=answers, response_class=Response)
    add("/tensorboard", routes.tensorboard, methods=["GET"], responses=answers, response_class=Response)
    add("/spec", routes.spec, methods=["GET"], responses=_YAML | errors(404), response_class=Response)
    return router
