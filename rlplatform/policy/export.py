"""From a trained model to a PolicyBundle."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnvWrapper, VecTransposeImage
from torch import Tensor, nn

from rlplatform.algos.catalog import algorithms
from rlplatform.artifacts.atomic import replace_dir, write_text
from rlplatform.artifacts.checkpoint import hash_file
from rlplatform.errors import BundleError
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE
from rlplatform.policy.bundle import BundleManifest, DistributionSpec, Lineage, PolicyBundle, TensorSpec, load_bundle
from rlplatform.policy.graph import Head, PolicyGraph, Statistics, find_head
from rlplatform.policy.spaces import BoxSpace, DiscreteSpace, Space, parts, space_from_gym

OPSET = 17
_TRACED_BATCH = 2
"""Not 1, which tracing would treat as a dimension to broadcast."""
_PACKAGES = ("rlplatform", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "onnx", "numpy")


class Moments(Protocol):
    """Running mean and variance of one part of the observations."""

    @property
    def mean(self) -> np.ndarray: ...  # noqa: D102

    @property
    def var(self) -> np.ndarray: ...  # noqa: D102


class ObservationNormalizer(Protocol):
    """What a trained normaliser knows, as `rlplatform.train.normalizer.Normalizer` holds it."""

    @property
    def observations(self) -> Mapping[str, Moments]:
        """Statistics by key of a Dict; those of another observation under the empty key."""

    @property
    def config(self) -> Mapping[str, Any]:
        """VecNormalize's settings: `clip_obs` and `epsilon` are used."""


def export_bundle(
    model: BaseAlgorithm,
    normalizer: ObservationNormalizer | None,
    folder: Path,
    lineage: Lineage | None = None,
    metrics: Mapping[str, float] | None = None,
    *,
    observation_space: gym.Space[Any] | None = None,
) -> PolicyBundle:
    """Write a model's policy as a bundle, whole or not at all, and read it back with every check.

    Args:
        model: The trained model. It is left as it was.
        normalizer: Statistics of the observations that it was trained on; None when they were not normalised.
        folder: The folder to make or to replace.
        lineage: Where the policy comes from.
        metrics: What is known of its quality; values that are not finite are left out.
        observation_space: The environment's own, before channels were moved to the front. None: asked of the model's
            environment, or where it has none, taken to be the model's.

    Raises:
        BundleError: The policy's class or a space cannot be published.
        StorageError: The folder cannot be written.
    """
    head = find_head(model.policy)
    own_space = observation_space or _own_observation_space(model)
    statistics = _statistics(normalizer, own_space)
    described, action_space = _describe(own_space, model)
    inputs = _inputs(described, head)
    graph = PolicyGraph(model.policy, head, own_space, statistics, tuple(inputs), _output_names(head))
    onnx_bytes, produced = _trace(graph, inputs)
    discrete = bool(head.nvec)
    with replace_dir(folder) as temporary:
        (temporary / BUNDLE_ONNX_FILE).write_bytes(onnx_bytes)
        manifest = BundleManifest(
            algorithm=_algorithm_name(model),
            created_at=datetime.now(UTC),
            observation_space=described,
            action_space=action_space,
            inputs=tuple(_tensor_spec(name, value) for name, value in inputs.items()),
            outputs=tuple(_tensor_spec(name, value) for name, value in produced.items()),
            distribution=DistributionSpec(type=head.type, parameters=head.parameters, nvec=head.nvec),
            mask_size=sum(head.nvec) if discrete else None,
            state=tuple(name for name, _ in head.state),
            has_value=head.has_value,
            normalized=bool(statistics),
            opset=OPSET,
            lineage=lineage or Lineage(),
            metrics={key: float(value) for key, value in (metrics or {}).items() if math.isfinite(value)},
            versions={package: version(package) for package in _PACKAGES if _is_installed(package)},
            files={BUNDLE_ONNX_FILE: hash_file(temporary / BUNDLE_ONNX_FILE)},
        )
        write_text(temporary / BUNDLE_JSON_FILE, manifest.model_dump_json(indent=2) + "\n")
    return load_bundle(folder)


def _own_observation_space(model: BaseAlgorithm) -> gym.Space[Any]:
    env: Any = model.get_env()
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecTransposeImage):
            return env.venv.observation_space
        env = env.venv
    return model.observation_space


def _describe(own_space: gym.Space[Any], model: BaseAlgorithm) -> tuple[Space, Space]:
    observation, action = space_from_gym(own_space), space_from_gym(model.action_space)
    for key, part in parts(observation).items():
        if isinstance(part, DiscreteSpace) and part.start != 0:
            raise BundleError(
                f"Observations {key!r} that count from {part.start} cannot be published: SB3 encodes choices from 0. "
                "Wrap the environment so that they count from 0."
            )
    if isinstance(action, BoxSpace) and not action.dtype.startswith("float"):
        raise BundleError(f"Actions of a Box must be floating-point numbers, got {action.dtype}. Use float32.")
    seen = model.observation_space
    for key, part in parts(observation).items():
        inner = cast(spaces.Dict, seen)[key].shape if key else seen.shape
        height_first = (part.shape[2], *part.shape[:2]) if len(part.shape) == 3 else None
        if inner not in (part.shape, height_first):
            raise BundleError(
                f"The model sees observations of shape {inner}, but the environment gives {part.shape}. "
                "Give the space of the environment that it was trained in."
            )
    return observation, action


def _statistics(normalizer: ObservationNormalizer | None, own_space: gym.Space[Any]) -> dict[str, Statistics]:
    found: dict[str, Statistics] = {}
    for key, moments in (normalizer.observations if normalizer else {}).items():
        config = cast(ObservationNormalizer, normalizer).config
        part = own_space[key] if isinstance(own_space, spaces.Dict) else own_space
        if moments.mean.shape != part.shape:
            raise BundleError(
                f"Statistics of {key or 'observations'!r} have the shape {moments.mean.shape}, but the "
                f"environment gives {part.shape}. Give the normaliser that the model was trained with."
            )
        found[key] = Statistics(moments.mean, moments.var, float(config["epsilon"]), float(config["clip_obs"]))
    return found


def _inputs(space: Space, head: Head) -> dict[str, Tensor]:
    """Make inputs for tracing: zeros, of the dtype that the environment gives."""
    found = {
        f"obs/{key}" if key else "obs": torch.from_numpy(np.zeros((_TRACED_BATCH, *part.shape), part.dtype))
        for key, part in parts(space).items()
    }
    if head.takes_masks:
        found["action_masks"] = torch.ones(_TRACED_BATCH, sum(head.nvec), dtype=torch.bool)
    for name, lstm in head.state:
        found[name] = torch.zeros(lstm.num_layers, _TRACED_BATCH, lstm.hidden_size)
    if head.state:
        found["episode_start"] = torch.zeros(_TRACED_BATCH, dtype=torch.bool)
    return found


def _output_names(head: Head) -> tuple[str, ...]:
    value = ("value",) if head.has_value else ()
    return ("action", *head.parameters, *value, *(f"next_{name}" for name, _ in head.state))


def _trace(graph: PolicyGraph, inputs: Mapping[str, Tensor]) -> tuple[bytes, dict[str, Tensor]]:
    given = tuple(tensor.to(graph.policy.device) for tensor in inputs.values())
    buffer = io.BytesIO()
    with _evaluating(graph.policy), torch.no_grad(), warnings.catch_warnings():
        # Tracing warns about Python values that it keeps: shapes of spaces, which are constants here.
        warnings.simplefilter("ignore")
        produced = dict(zip(graph.output_names, graph(*given), strict=True))
        axes = {name: {_batch_axis(name): "batch"} for name in (*inputs, *produced)}
        # The TorchScript exporter: ten times faster than the dynamo one, and the same operators for these networks.
        torch.onnx.export(
            graph,
            given,
            cast(Any, buffer),
            dynamo=False,
            opset_version=OPSET,
            dynamic_axes=axes,
            input_names=list(inputs),
            output_names=list(produced),
        )
    return buffer.getvalue(), produced


@contextmanager
def _evaluating(policy: nn.Module) -> Iterator[None]:
    """Put every layer into evaluation mode, and back as it was: a live model may be between two updates."""
    modes = [(module, module.training) for module in policy.modules()]
    policy.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _batch_axis(name: str) -> int:
    return 1 if "state/" in name and not name.startswith("obs") else 0


def _tensor_spec(name: str, value: Tensor) -> TensorSpec:
    shape: list[int | None] = list(value.shape)
    shape[_batch_axis(name)] = None
    return TensorSpec(name=name, dtype=cast(Any, str(value.dtype).removeprefix("torch.")), shape=tuple(shape))


def _algorithm_name(model: BaseAlgorithm) -> str:
    cls = type(model).__name__
    return next((e.name for e in algorithms().values() if e.algorithm.partition(":")[2] == cls), cls.lower())


def _is_installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
