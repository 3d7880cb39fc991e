"""What came of an experiment: read from its runs' records and from the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.policy.registry import ModelVersion
from rlplatform.serve.errors import without_folder
from rlplatform.serve.keeper import score
from rlplatform.serve.routers.experiment_schemas import Evaluated, ResultsAnswer, RunResultAnswer
from rlplatform.store.experiments import Experiment, ExperimentRun
from rlplatform.store.registry import DatabaseRegistry


def result_of(experiment: Experiment, runs: Sequence[ExperimentRun], registry: DatabaseRegistry) -> ResultsAnswer:
    """Return the results of an experiment that is over."""
    answers = [_run_result(run, registry) for run in runs]
    best = run_of(runs, None)
    final = next((one.final_evaluation for one in answers if best and one.run_id == best.run_id), None)
    version = published(runs, registry)
    artifacts = f"/experiments/{experiment.id}/artifacts"
    has_graphs = any(any(RunDir(run.run_path).tb_path.glob("*")) for run in runs)
    return ResultsAnswer(
        experiment_id=experiment.id,
        status=experiment.status,
        final_evaluation=final,
        model=version.reference if version else None,
        model_path=f"{artifacts}/model" if version else None,
        graph_path=f"{artifacts}/tensorboard" if has_graphs else None,
        runs=tuple(answers),
    )


def published(runs: Sequence[ExperimentRun], registry: DatabaseRegistry) -> ModelVersion | None:
    """Return the version that was published last from some runs; None if there is none."""
    versions = [version for run in runs for version in registry.versions_of_run(run.run_id)]
    return max(versions, key=lambda version: version.published_at, default=None)


def run_of(runs: Sequence[ExperimentRun], seed: int | None) -> ExperimentRun | None:
    """Return the run with a seed, or without one the best so far; None if there is none."""
    if seed is not None:
        return next((run for run in runs if run.seed == seed), None)
    return max(runs, key=lambda run: score(_result(run)), default=None)


def evaluated(measured: Mapping[str, Any]) -> Evaluated:
    """Return an evaluation, as a run's record has it, in the document's words."""
    return Evaluated(
        avg_reward=measured["return_mean"],
        std_reward=measured["return_std"],
        avg_length=measured["length_mean"],
        n_episodes=measured["n_episodes"],
        ci_low=measured["return_ci_low"],
        ci_high=measured["return_ci_high"],
        success_rate=measured["success_rate"],
    )


def _run_result(run: ExperimentRun, registry: DatabaseRegistry) -> RunResultAnswer:
    record = RunDir(run.run_path).read()
    result: Mapping[str, Any] = record.result or {}
    versions = registry.versions_of_run(run.run_id)
    return RunResultAnswer(
        run_id=run.run_id,
        seed=run.seed,
        status=record.state,
        reason=without_folder(record.reason or "", RunDir(run.run_path).home) or None,
        timesteps=result.get("step", record.progress.step),
        best_reward=result.get("best_return"),
        final_evaluation=evaluated(result["final"]) if result.get("final") else None,
        model=versions[-1].reference if versions else None,
    )


def _result(run: ExperimentRun) -> Mapping[str, Any] | None:
    path = RunDir(run.run_path)
    return path.read().result if path.run_path.exists() else None
