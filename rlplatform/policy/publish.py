"""From a policy folder of a run to a version in a registry."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rlplatform.artifacts.atomic import storage_errors, write_text
from rlplatform.envs.make import spaces_of
from rlplatform.names import MODEL_FILE, NORMALIZER_FILE, SPEC_FILE
from rlplatform.policy.bundle import Lineage
from rlplatform.policy.export import export_bundle
from rlplatform.policy.registry import ModelRegistry, ModelVersion, check_model_name
from rlplatform.specs.load import dump_spec
from rlplatform.specs.run import RunSpec
from rlplatform.train.policy_folder import load_policy


def publish_policy(
    registry: ModelRegistry,
    name: str,
    folder: Path,
    spec: RunSpec,
    lineage: Lineage | None = None,
    metrics: Mapping[str, float] | None = None,
) -> ModelVersion:
    """Export a run's policy and publish it, with SB3's zip, the normaliser and the spec beside it for resuming.

    Args:
        registry: Where to.
        name: The model.
        folder: A checkpoint, or a run's `best`. It holds pickles: only from a run that you trust.
        spec: The run's spec.
        lineage: What is known besides the spec's digest, environment and seed, which are filled in.
        metrics: An evaluation of the policy under the keys of `EvalResult.metrics`; promotion compares it.

    Raises:
        CheckpointError: `folder` holds no policy.
        BundleError: The policy cannot be published.
        RegistryError: The name is not valid.
    """
    check_model_name(name)
    policy = load_policy(folder, spec.algorithm.name)
    known = (lineage or Lineage()).model_copy(
        update={"spec_digest": spec.training_digest(), "env_id": spec.env.id, "seed": spec.seed}
    )
    with tempfile.TemporaryDirectory(prefix="rlplatform-publish-") as temporary:
        bundle = Path(temporary, "bundle")
        observation_space, _ = spaces_of(spec.env)
        export_bundle(policy.model, policy.normalizer, bundle, known, metrics, observation_space=observation_space)
        with storage_errors(bundle):
            for file in (MODEL_FILE, NORMALIZER_FILE):
                if (folder / file).is_file():
                    shutil.copyfile(folder / file, bundle / file)
        write_text(bundle / SPEC_FILE, dump_spec(spec))
        return registry.publish(name, bundle)
