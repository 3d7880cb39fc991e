"""What the service has done in other processes, because it needs torch or environments and replicas load neither."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.envs.catalog import environments
from rlplatform.errors import CheckpointError, RlPlatformError
from rlplatform.specs.run import EnvSpec, RunSpec
from rlplatform.specs.settings import Settings

PUBLISH_EPISODES = 20
"""Least episodes behind the evaluation that a published policy carries, where the spec asks for a final one."""


def prepare_runs(
    home: Path, experiment_id: str, spec: Mapping[str, Any], seeds: Sequence[int]
) -> list[tuple[str, int]]:
    """Make the folder of a run for each seed, and return path and seed of each; folders that exist are kept.

    Raises:
        RlPlatformError: The runs cannot be trained.
    """
    from rlplatform.train.resolve import resolve

    asked, made = RunSpec.model_validate(spec), []
    for seed in seeds:
        title = re.sub(r"[^A-Za-z0-9._-]+", "-", asked.title)
        path = home / names.RUNS_DIR / f"{title}-s{seed}-{experiment_id}"
        if not (path / names.RUN_FILE).is_file():
            RunDir.create(home, resolve(asked.model_copy(update={"seed": seed})), path)
        made.append((str(path), seed))
    return made


def publish_run(platform: Settings, run_path: str, model: str) -> str:
    """Publish a run's best policy as the next version of a model, and return its reference; "" if it has no policy.

    A policy that is published already is not published again.

    Raises:
        RlPlatformError: The policy cannot be published.
    """
    from rlplatform.policy.bundle import Lineage
    from rlplatform.policy.publish import publish_policy
    from rlplatform.store.database import open_database
    from rlplatform.store.registry import DatabaseRegistry
    from rlplatform.train.initialize import find_policy
    from rlplatform.train.policy_folder import policy_step

    run = RunDir(Path(run_path))
    try:
        folder = find_policy(run_path, "best", platform.home)
    except CheckpointError:
        return ""
    spec, git = run.spec(), run.read().git
    lineage = Lineage(
        run_id=run.id,
        checkpoint=folder.name,
        checkpoint_step=policy_step(folder),
        git_commit=None if git is None else git.revision,
        git_dirty=None if git is None else git.dirty,
    )
    with closing(open_database(platform)) as database:
        registry = DatabaseRegistry(database, platform.home / names.MODELS_DIR)
        for version in registry.versions_of_run(run.id):
            known = version.manifest.lineage
            if version.name == model and known.checkpoint_step == lineage.checkpoint_step:
                return version.reference
        metrics = None
        if episodes := spec.evaluation.final_episodes:
            metrics = _measure(folder, spec, max(PUBLISH_EPISODES, episodes), 0, deterministic=True).metrics()
        return publish_policy(registry, model, folder, spec, lineage, metrics).reference


def evaluate_run(
    platform: Settings, run_path: str, which: str, n_episodes: int, seed: int, deterministic: bool
) -> dict[str, Any]:
    """Play episodes with a run's policy and return what they measured.

    Raises:
        CheckpointError: The run has no policy yet.
    """
    from rlplatform.train.initialize import find_policy
    from rlplatform.train.policy_folder import policy_step

    folder = find_policy(run_path, which, platform.home)
    result = _measure(folder, RunDir(Path(run_path)).spec(), n_episodes, seed, deterministic=deterministic)
    return {**asdict(result), "step": policy_step(folder)}


def describe_environments() -> list[dict[str, Any]]:
    """Return name, description and spaces of every environment of the catalog; `error` of those that cannot be made."""
    return [_describe(entry.id, entry.summary) for entry in environments().values()]


def _describe(id: str, summary: str) -> dict[str, Any]:
    from rlplatform.envs.make import spaces_of

    found: dict[str, Any] = {"name": id, "description": summary, "observation_space": {}, "action_space": {}}
    try:
        observation_space, action_space = spaces_of(EnvSpec(id=id))
    except RlPlatformError as error:
        return {**found, "error": str(error)}
    return {**found, "observation_space": _space(observation_space), "action_space": _space(action_space)}


def _space(space: Any) -> dict[str, Any]:
    shape, dtype = space.shape, space.dtype
    described: dict[str, Any] = {
        "type": type(space).__name__,
        "shape": None if shape is None else list(shape),
        "dtype": None if dtype is None else str(dtype),
    }
    return {**described, "n": int(space.n)} if hasattr(space, "n") and not isinstance(space.n, tuple) else described


def _measure(folder: Path, spec: RunSpec, n_episodes: int, seed: int, *, deterministic: bool) -> Any:
    from rlplatform.envs.make import reward_threshold
    from rlplatform.train.evaluate import evaluate
    from rlplatform.train.policy_folder import load_policy
    from rlplatform.train.seeding import derive_seed

    threshold = spec.evaluation.success_threshold
    return evaluate(
        load_policy(folder, spec.algorithm.name),
        spec.env,
        n_episodes=n_episodes,
        seed=derive_seed(seed, "rlplatform evaluate"),
        deterministic=deterministic,
        success_threshold=reward_threshold(spec.env) if threshold is None else threshold,
    )
