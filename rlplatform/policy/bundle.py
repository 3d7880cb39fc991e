"""PolicyBundle: a policy as two files that hold no code, `policy.onnx` and `policy.json`.

    policy.json ─ which spaces, inputs, outputs and distribution; where the policy comes from; sha256 of policy.onnx
    policy.onnx ─ the environment's observation ─▶ normalisation ─▶ network ─▶ action, parameters, value, state

`load_bundle` trusts neither: sizes are bounded, the hash is compared, and the graph must be self-contained and made of
standard operators, so that reading a stranger's bundle can neither run code nor reach another file.
The format is documented in docs/policy-bundle.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlplatform.artifacts.checkpoint import FileRecord
from rlplatform.errors import BundleError
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE
from rlplatform.policy.spaces import (
    MAX_ELEMENTS,
    DictSpace,
    DiscreteSpace,
    MultiBinarySpace,
    MultiDiscreteSpace,
    Space,
    parts,
)

MAX_JSON_BYTES = 64 * 2**20
MAX_ONNX_BYTES = 2**31 - 1
"""What one protobuf message can hold."""
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

DistributionType = Literal[
    "categorical", "multi_categorical", "bernoulli", "diag_gaussian", "squashed_gaussian", "greedy", "deterministic"
]

_LOGITS, _GAUSSIAN = (("logits",),), (("mean", "log_std"),)
_FITTING: dict[DistributionType, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "categorical": (("discrete",), _LOGITS),
    "multi_categorical": (("multi_discrete", "multi_binary"), _LOGITS),
    "bernoulli": (("multi_binary",), _LOGITS),
    "diag_gaussian": (("box",), _GAUSSIAN),
    "squashed_gaussian": (("box",), _GAUSSIAN),
    "greedy": (("discrete",), (("q_values",), ("scores",))),
    "deterministic": (("box",), ((),)),
}
"""The action spaces that a distribution can act in, and what its parameters may be called."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TensorSpec(_Part):
    """One input or output of the graph."""

    name: str
    dtype: Literal[
        "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"
    ]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_ELEMENTS)] | None, ...], Field(max_length=9)]
    """None is the batch axis: the first, except in recurrent state `[layers, batch, size]`."""


class DistributionSpec(_Part):
    """How the policy draws actions."""

    type: DistributionType
    """`greedy` is an argmax of values or scores, `deterministic` has no parameters: both act the same either way."""
    parameters: tuple[str, ...]
    """Names of the outputs that hold its parameters."""
    nvec: tuple[Annotated[int, Field(ge=1, le=MAX_ELEMENTS)], ...] = ()
    """Number of choices of each decision, where actions are choices."""


class Lineage(_Part):
    """Where a policy comes from. What is not known is None."""

    run_id: str | None = None
    spec_digest: str | None = None
    """`RunSpec.training_digest` of the run."""
    env_id: str | None = None
    seed: int | None = None
    checkpoint: str | None = None
    """Name of the checkpoint's folder, or `best`."""
    checkpoint_step: int | None = None
    """Environment steps trained."""
    git_commit: str | None = None
    git_dirty: bool | None = None


class BundleManifest(_Part):
    """What `policy.json` says."""

    format: Literal[1] = 1
    algorithm: str
    created_at: datetime
    observation_space: Space
    action_space: Space
    """What the policy was trained on: the environment's own layout, before normalisation."""
    inputs: tuple[TensorSpec, ...]
    """Observations (`obs`, or `obs/<key>` of a Dict), then `action_masks`, then recurrent state and `episode_start`."""
    outputs: tuple[TensorSpec, ...]
    distribution: DistributionSpec
    mask_size: Annotated[int, Field(ge=1, le=MAX_ELEMENTS)] | None = None
    """Length of an action mask; None where actions cannot be masked. The graph takes masks if it lists the input."""
    state: tuple[str, ...] = ()
    """Names of the recurrent state's inputs `state/<x>`; each comes back as the output `next_<name>`."""
    has_value: bool
    """Whether there is an output `value`: the critic's V(s), or the largest Q(s, a)."""
    normalized: bool
    """Whether statistics of observations are baked in."""
    opset: int
    lineage: Lineage = Lineage()
    metrics: dict[str, float] = {}
    versions: dict[str, str] = {}
    """Packages that made the bundle."""
    files: dict[str, FileRecord]

    @model_validator(mode="after")
    def _is_consistent(self) -> BundleManifest:
        """Refuse what contradicts itself: the spaces, the state and the distribution say what every tensor must be."""
        kinds, parameters = _FITTING[self.distribution.type]
        if self.action_space.type not in kinds or self.distribution.parameters not in parameters:
            raise ValueError(
                f"a distribution {self.distribution.type} of {self.distribution.parameters} does not fit the action "
                f"space {self.action_space.type}"
            )
        nvec, choices = self.distribution.nvec, _choices(self.action_space, self.distribution)
        if nvec != choices:
            raise ValueError(
                f"distribution.nvec must be {reprlib.repr(choices)}, as the action space, got {reprlib.repr(nvec)}"
            )
        if self.mask_size != (sum(choices) or None):
            raise ValueError(f"mask_size must be {sum(choices) or None}, the sum of nvec, got {self.mask_size}")
        for what, found, expected in (
            ("inputs", self.inputs, self._expected_inputs()),
            ("outputs", self.outputs, self._expected_outputs()),
        ):
            for number, (got, wanted) in enumerate(zip_longest(found, expected), 1):
                if got != wanted:
                    raise ValueError(f"number {number} of {what} must be {_in_words(wanted)}, got {_in_words(got)}")
        if set(self.files) != {BUNDLE_ONNX_FILE}:
            raise ValueError(f"files must name {BUNDLE_ONNX_FILE} and nothing else")
        return self

    def _expected_inputs(self) -> tuple[TensorSpec, ...]:
        tensors = [
            TensorSpec(name=f"obs/{key}" if key else "obs", dtype=part.dtype, shape=(None, *part.shape))
            for key, part in parts(self.observation_space).items()
        ]
        if self.mask_size is not None and any(tensor.name == "action_masks" for tensor in self.inputs):
            tensors.append(TensorSpec(name="action_masks", dtype="bool", shape=(None, self.mask_size)))
        if self.state:
            tensors += [*self._state_tensors(), TensorSpec(name="episode_start", dtype="bool", shape=(None,))]
        return tuple(tensors)

    def _expected_outputs(self) -> tuple[TensorSpec, ...]:
        space = self.action_space
        assert not isinstance(space, DictSpace)
        width = self.mask_size or math.prod(space.shape)
        tensors = [TensorSpec(name="action", dtype=space.dtype, shape=(None, *space.shape))]
        tensors += [
            TensorSpec(name=name, dtype="float32", shape=(None, width)) for name in self.distribution.parameters
        ]
        if self.has_value:
            tensors.append(TensorSpec(name="value", dtype="float32", shape=(None,)))
        for tensor in self._state_tensors():
            tensors.append(tensor.model_copy(update={"name": f"next_{tensor.name}"}))
        return tuple(tensors)

    def _state_tensors(self) -> list[TensorSpec]:
        """Return the state's inputs as they must be; their sizes are the network's own."""
        shapes = {tensor.name: tensor.shape for tensor in self.inputs}
        tensors = []
        for name in self.state:
            match shapes.get(name):
                case (int(layers), None, int(size)):
                    tensors.append(TensorSpec(name=name, dtype="float32", shape=(layers, None, size)))
                case found:
                    raise ValueError(f"inputs must hold {name} of the shape (layers, None, size), got {found}")
        return tensors


@dataclass(frozen=True)
class PolicyBundle:
    """A bundle on disk whose files were checked."""

    path: Path
    manifest: BundleManifest
    onnx: bytes
    """The verified graph: what is run is what was checked, also if the file changes afterwards."""


def _read_manifest(path: Path) -> BundleManifest:
    """Read `policy.json` without looking at the graph.

    Args:
        path: The folder of the bundle.

    Raises:
        BundleError: The file is missing, too large, or not a manifest.
    """
    manifest_path = path / BUNDLE_JSON_FILE
    text = _read(manifest_path, MAX_JSON_BYTES)
    try:
        return BundleManifest.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the manifest"
        what = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"{manifest_path} is not a policy manifest: {field}: {what}. Export it again.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{manifest_path} is not JSON: {error}. Export it again.") from error


def load_bundle(path: Path) -> PolicyBundle:
    """Read and check a bundle: manifest, hash, and the structure of the graph. No code from it runs.

    Args:
        path: The folder that holds `policy.onnx` and `policy.json`.

    Raises:
        BundleError: A file is missing, too large, unreadable, or differs from the manifest; or the graph refers to
            other files or to operators that are not ONNX's own.
    """
    manifest = _read_manifest(path)
    graph = _read(path / BUNDLE_ONNX_FILE, MAX_ONNX_BYTES)
    record = manifest.files[BUNDLE_ONNX_FILE]
    if len(graph) != record.bytes or hashlib.sha256(graph).hexdigest() != record.sha256:
        raise BundleError(
            f"{path / BUNDLE_ONNX_FILE} is damaged: it differs from the sha256 in {BUNDLE_JSON_FILE}. "
            "Publish the policy again."
        )
    _check_graph(graph, path / BUNDLE_ONNX_FILE)
    return PolicyBundle(path, manifest, graph)


def _check_graph(graph: bytes, source: Path) -> None:
    """Check that an ONNX graph is self-contained and made of standard operators.

    Args:
        graph: The serialised model.
        source: What to call it in errors.

    Raises:
        BundleError: It is not.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(graph)
        if model.functions:
            raise BundleError(f"{source} must use ONNX's own operators only, got functions. Export it with rlplatform.")
        # Before the checker, which would look at the files that external data names.
        _check_nodes(model.graph, source)
        onnx.checker.check_model(graph)
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{source} is not a valid ONNX model: {reason} Export it again.") from error


def _check_nodes(graph: Any, source: Path) -> None:
    import onnx

    tensors = [*graph.initializer, *(t for s in graph.sparse_initializer for t in (s.values, s.indices))]
    for node in graph.node:
        if node.domain not in _STANDARD_DOMAINS:
            raise BundleError(
                f"{source} must use ONNX's own operators only, got {node.domain}.{node.op_type}. "
                "Export it with rlplatform."
            )
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                _check_nodes(inner, source)
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(
                f"{source} must hold its own weights, but {tensor.name!r} lies in another file. "
                "Export it with rlplatform."
            )
        if math.prod(tensor.dims) > MAX_ONNX_BYTES:
            raise BundleError(
                f"{source} holds {tensor.name!r} of {list(tensor.dims)} elements: too large. Export it again."
            )


def _choices(space: Space, distribution: DistributionSpec) -> tuple[int, ...]:
    """Return what `nvec` must be: the number of choices of each decision, empty where actions are not choices."""
    match space:
        case DiscreteSpace():
            return (space.n,)
        case MultiDiscreteSpace():
            return space.nvec
        case MultiBinarySpace() if (
            distribution.type == "multi_categorical"
        ):  # MaskablePPO: a choice of two for each bit
            # No longer than it takes to differ: a few bytes of manifest can name a space of millions of bits.
            return (2,) * min(math.prod(space.shape), len(distribution.nvec) + 1)
    return ()


def _in_words(tensor: TensorSpec | None) -> str:
    return "left out" if tensor is None else f"{tensor.name[:200]!r} {tensor.dtype} {tensor.shape}"


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is not a file, but a policy bundle must hold it. Give the folder of a bundle.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if len(data) > limit:
        raise BundleError(f"{path} must have at most {limit} bytes. Publish a smaller policy.")
    return data
