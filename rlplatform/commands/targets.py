"""What a person means by a run, a checkpoint, a model or a bundle: a policy that acts, and its environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlplatform import names
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.commands.workspace import home
from rlplatform.errors import CheckpointError, RunNotFound
from rlplatform.specs.run import EnvSpec, RunSpec
from rlplatform.specs.settings import load_settings

if TYPE_CHECKING:
    import numpy as np

    from rlplatform.policy.runtime import PolicyRuntime
    from rlplatform.store.database import Database
    from rlplatform.store.registry import DatabaseRegistry
    from rlplatform.train.evaluate import Actor, EvalResult


@dataclass(frozen=True)
class PolicySource:
    """A policy folder of a run: SB3's zip, and the run that it belongs to."""

    folder: Path
    run: RunDir
    spec: RunSpec
    step: int | None
    """Environment steps it was trained for."""


@dataclass(frozen=True)
class Target:
    """What is evaluated."""

    label: str
    actor: Actor
    env: EnvSpec
    success_threshold: float | None
    """As the run's spec has it; None: the environment's."""


def find_target(text: str, which: str) -> Target:
    """Return the policy that `text` names.

    Args:
        text: A run (id, beginning of an id, folder), a checkpoint, a bundle, or a model such as `cartpole@champion`.
        which: `best` or `last`, of a run.

    Raises:
        RlPlatformError: It names nothing, or nothing that can act.
    """
    bundle = find_bundle(text)
    if bundle is not None:
        return _bundle_target(bundle)
    try:
        source = find_source(text, which)
    except RunNotFound as error:
        raise RunNotFound(
            f"{error} Nor is it the folder of a checkpoint or bundle, or a model: see `rlplatform models list`."
        ) from None
    return source_target(source)


def source_target(source: PolicySource) -> Target:
    """Load the policy of a run."""
    from rlplatform.train.policy_folder import load_policy

    actor = load_policy(source.folder, source.spec.algorithm.name)
    threshold = source.spec.evaluation.success_threshold
    return Target(f"{source.run.id}, {source.folder.name}", actor, source.spec.env, threshold)


def measure(target: Target, *, n_episodes: int, seed: int, deterministic: bool) -> EvalResult:
    """Evaluate a target on episodes that training never uses.

    Args:
        target: What acts, and where.
        n_episodes: Episodes to play.
        seed: The same seed gives the same episodes to every policy.
        deterministic: Act greedily.
    """
    from rlplatform.envs.make import reward_threshold
    from rlplatform.train.evaluate import evaluate
    from rlplatform.train.seeding import derive_seed

    threshold = target.success_threshold
    return evaluate(
        target.actor,
        target.env,
        n_episodes=n_episodes,
        seed=derive_seed(seed, "rlplatform evaluate"),
        deterministic=deterministic,
        success_threshold=reward_threshold(target.env) if threshold is None else threshold,
    )


def find_bundle(text: str) -> Path | None:
    """Return the folder of a bundle, given as a folder or as a model reference; None when `text` is neither."""
    if (Path(text) / names.BUNDLE_JSON_FILE).is_file():
        return Path(text)
    registry = model_registry()
    if "@" in text or any(model.name == text for model in registry.models()):
        return registry.resolve(text).bundle_path
    return None


def model_registry() -> DatabaseRegistry:
    """Return the registry of published models, the one that the service answers from."""
    from rlplatform.store.registry import open_registry

    return open_registry(load_settings())


@contextmanager
def open_store() -> Iterator[Database]:
    """Open the store of models, experiments and keys for the block."""
    from rlplatform.store.database import open_database

    with closing(open_database(load_settings())) as database:
        yield database


def find_source(text: str, which: str) -> PolicySource:
    """Return the policy folder that a run, or the path of a checkpoint, means.

    Raises:
        RunNotFound: There is no such run.
        CheckpointError: The run has no policy yet, or the folder belongs to no run.
    """
    from rlplatform.train.initialize import find_policy
    from rlplatform.train.policy_folder import policy_step

    folder = find_policy(text, which, home())
    run = next(
        (RunDir(parent) for parent in folder.absolute().parents[:2] if (parent / names.RUN_FILE).is_file()), None
    )
    if run is None:
        raise CheckpointError(
            f"{folder} lies in no run, so its environment is not known. Give the checkpoint inside its run."
        )
    return PolicySource(folder, run, run.spec(), policy_step(folder))


def _bundle_target(path: Path) -> Target:
    from rlplatform.policy.runtime import PolicyRuntime

    runtime = PolicyRuntime.load(path)
    lineage = runtime.manifest.lineage
    label = f"bundle {path}"
    try:
        run = RunDir.open(home(), lineage.run_id or "")
    except RunNotFound:
        if lineage.env_id is None:
            raise CheckpointError(
                f"{path} does not say which environment it was trained in. Evaluate the run that it came from."
            ) from None
        return Target(label, BundleActor(runtime), EnvSpec(id=lineage.env_id, backend="sync"), None)
    spec = run.spec()
    return Target(label, BundleActor(runtime), spec.env, spec.evaluation.success_threshold)


class BundleActor:
    """A policy runtime in the shape that evaluation asks for."""

    def __init__(self, runtime: PolicyRuntime) -> None:
        """Act with `runtime`."""
        import numpy as np

        self._runtime = runtime
        self._rng = np.random.default_rng(0)

    def act(
        self,
        obs: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        *,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return one action for each observation of a batch, and the recurrent state after it."""
        recurrent = bool(self._runtime.manifest.state)
        prediction = self._runtime.predict(
            obs,
            deterministic=deterministic,
            state=state,
            episode_start=episode_start if recurrent else None,
            action_masks=action_masks,
            rng=self._rng,
        )
        return prediction.action, prediction.state
