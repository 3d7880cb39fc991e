"""Publishing a run's policy: measured first, exported as ONNX, kept as a version of a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlplatform.commands.targets import PolicySource, find_source, measure, model_registry, source_target

if TYPE_CHECKING:
    from rlplatform.policy.bundle import Lineage
    from rlplatform.policy.registry import ModelVersion


def publish_run(
    text: str, *, which: str, name: str | None = None, alias: str | None = None, n_episodes: int = 100
) -> ModelVersion:
    """Publish the policy of a run or checkpoint as the next version of a model.

    The policy is evaluated on episodes that neither trained nor chose it; the numbers go with it, for promotion.

    Args:
        text: The run, or the path of a checkpoint.
        which: `best` or `last`, of a run.
        name: The model. None: the run's name.
        alias: An alias to point at the version, without asking how good it is.
        n_episodes: Episodes of the evaluation; 0 for none.

    Raises:
        RlPlatformError: There is no such run, it has no policy yet, or its policy cannot be published.
    """
    from rlplatform.policy.publish import publish_policy
    from rlplatform.policy.registry import check_alias

    if alias is not None:
        check_alias(alias)
    source = find_source(text, which)
    metrics = None
    if n_episodes:
        metrics = measure(source_target(source), n_episodes=n_episodes, seed=0, deterministic=True).metrics()
    registry = model_registry()
    version = publish_policy(
        registry,
        model_name(source.spec.title) if name is None else name,
        source.folder,
        source.spec,
        _lineage(source),
        metrics,
    )
    if alias is not None:
        registry.set_alias(version.name, alias, version.number)
    return version


def published_runs() -> frozenset[str]:
    """Return the ids of the runs that model versions come from."""
    registry = model_registry()
    lineages = (
        version.manifest.lineage
        for model in registry.models()
        if model.versions
        for version in registry.versions(model.name)
    )
    return frozenset(lineage.run_id for lineage in lineages if lineage.run_id is not None)


def model_name(title: str) -> str:
    """Return a run's title as the name of a model: lower case, and only what a model's name may hold."""
    return re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._")[:64]


def _lineage(source: PolicySource) -> Lineage:
    from rlplatform.policy.bundle import Lineage

    git = source.run.read().git
    return Lineage(
        run_id=source.run.id,
        checkpoint=source.folder.name,
        checkpoint_step=source.step,
        git_commit=None if git is None else git.revision,
        git_dirty=None if git is None else git.dirty,
    )
