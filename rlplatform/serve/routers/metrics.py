"""/experiments/{id}/metrics: what a run has measured, and what it measures now."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from rlplatform import names
from rlplatform.artifacts.run_state import AT_REST
from rlplatform.errors import ExperimentNotFound, ResourceError, RunNotFound
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.routers.experiment_schemas import MetricsAnswer, MetricsSummary
from rlplatform.serve.routers.params import ExperimentId, errors
from rlplatform.store.experiments import Experiment, ExperimentRun
from rlplatform.store.metrics import BEGINNING, MIN_POINTS, Mark, Measured, MetricsTail, follow, read_metrics, thin

RECONNECT_MS = 1000
"""When a client's stream that was cut is to be opened again; it goes on where it was."""
MAX_POINTS = 10_000
Seed = Annotated[int | None, Query(ge=0, description="The run with this seed. Left out: the first one.")]
Step = Annotated[int | None, Query(ge=0, le=10**12)]
_EVENTS: dict[str, Any] = {
    "description": "Events `metrics`, then `end`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._store = gateway, gateway.experiments

    def metrics(
        self,
        id: ExperimentId,
        from_timestep: Step = None,
        to_timestep: Step = None,
        max_points: Annotated[int, Query(ge=MIN_POINTS, le=MAX_POINTS)] = 1000,
        seed: Seed = None,
    ) -> MetricsAnswer:
        """Return what a run has measured in a range of steps; of more than `max_points` the telling ones."""
        experiment, run = self._find(id, seed)
        records = [] if run is None else read_metrics(run.run_path, start=from_timestep, end=to_timestep)
        return MetricsAnswer(
            experiment_id=id,
            run_id=None if run is None else run.run_id,
            seed=experiment.seeds[0] if run is None else run.seed,
            metrics=tuple(_shown(record) for record in thin(records, max_points)),
            summary=_summary(records, None if run is None else run.run_path / names.METRICS_FILE),
        )

    def stream(
        self,
        id: ExperimentId,
        seed: Seed = None,
        last_event_id: Annotated[str | None, Header(description="Where a stream that was cut goes on.")] = None,
    ) -> StreamingResponse:
        """Send what a run measures as it comes, as server-sent events, until it pauses or is over."""
        after = Mark.parse(last_event_id) if last_event_id else BEGINNING
        streams, limit = self._gateway.inference.streams, self._gateway.settings.max_streams
        if streams.count >= limit:
            raise ResourceError(f"At most {limit} streams are open at a time. Close one, or ask for /metrics.")
        _, run = self._find(id, seed)
        if run is None:
            raise RunNotFound(f"Experiment {id} has no runs yet. Start it, or wait for its turn.")
        tail = MetricsTail(run.run_path, after=after)
        return StreamingResponse(self._events(id, tail), media_type="text/event-stream")

    async def _events(self, id: str, tail: MetricsTail) -> AsyncIterator[bytes]:
        streams = self._gateway.inference.streams
        streams.count += 1
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode()
            async for measured in follow(tail, lambda: self._is_over(id)):
                yield _event(measured)
            yield b"event: end\ndata: {}\n\n"
        finally:
            streams.count -= 1

    def _is_over(self, id: str) -> bool:
        try:
            return self._store.get(id).status in AT_REST
        except ExperimentNotFound:
            return True

    def _find(self, id: str, seed: int | None) -> tuple[Experiment, ExperimentRun | None]:
        experiment, runs = self._store.get(id), self._store.runs(id)
        if seed is None:
            return experiment, runs[0] if runs else None
        if seed not in experiment.seeds:
            raise RunNotFound(f"Experiment {id} has no seed {seed}. It has: {', '.join(map(str, experiment.seeds))}.")
        return experiment, next((run for run in runs if run.seed == seed), None)


def metrics_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router, routes = APIRouter(prefix="/experiments/{id}/metrics", tags=["experiments"]), _Routes(gateway)
    router.add_api_route("", routes.metrics, methods=["GET"], responses=errors(404))
    router.add_api_route(
        "/stream",
        routes.stream,
        methods=["GET"],
        response_class=StreamingResponse,
        responses={200: _EVENTS, **errors(404)},
    )
    return router


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record in the document's words, with the rest of it under its own keys."""
    rest = {key: value for key, value in record.items() if key != names.STEP}
    return {"timestep": record[names.STEP], "reward": record.get(names.ROLLOUT_RETURN_MEAN), **rest}


def _summary(records: Sequence[Mapping[str, Any]], file: Path | None) -> MetricsSummary:
    trained = _values(records, names.ROLLOUT_RETURN_MEAN)
    measured = _values(records, names.EVAL_RETURN_MEAN) or trained
    changed = file.stat().st_mtime if file is not None and file.exists() else None
    return MetricsSummary(
        avg_reward_last_100=trained[-1] if trained else None,
        best_reward=max(measured, default=None),
        total_timesteps=records[-1][names.STEP] if records else 0,
        last_updated=None if changed is None else datetime.fromtimestamp(changed, UTC),
    )


def _values(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [record[key] for record in records if record.get(key) is not None]


def _event(measured: Measured) -> bytes:
    return f"id: {measured.mark}\nevent: metrics\ndata: {json.dumps(_shown(measured.record))}\n\n".encode()
