"""The tensors of the Open Inference Protocol, version 2: in JSON, or as bytes behind it.

    {"inputs": [{"name": "obs", "shape": [2, 4], "datatype": "FP32", "data": [...]}]}
    {"inputs": [{… "parameters": {"binary_data_size": 32}}]}‖32 bytes, where `Inference-Header-Content-Length` is the
                                                              length of the JSON

Source: KServe, Open Inference Protocol V2, REST; Triton Inference Server, extension binary_tensor_data.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from rlplatform.errors import PolicyInputError, RequestError
from rlplatform.policy.bundle import BundleManifest
from rlplatform.policy.inputs import as_array, convert
from rlplatform.policy.runtime import Prediction
from rlplatform.policy.spaces import DictSpace, parts

_DATATYPES = {
    "BOOL": "bool",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    **{f"{kind}{bits}": f"{kind.lower()}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in _DATATYPES.items()}


class _Input(msgspec.Struct):
    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Parameters(msgspec.Struct):
    deterministic: bool = True
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    binary_data_output: bool = False

    def rng(self) -> np.random.Generator | None:
        """Return the source of randomness that was asked for."""
        return None if self.seed is None else np.random.default_rng(self.seed)


class TensorRequest(msgspec.Struct):
    """The JSON of a request."""

    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class TensorAnswer(NamedTuple):
    """The body of an answer."""

    body: bytes
    header_bytes: int | None
    """Length of the JSON where bytes follow it; None where none do."""


_decode = msgspec.json.Decoder(TensorRequest).decode
_encode = msgspec.json.Encoder().encode


def decode_request(body: bytes, header_bytes: int | None) -> tuple[TensorRequest, memoryview]:
    """Split a body into its JSON and the bytes behind it.

    Args:
        body: The whole of it.
        header_bytes: Length of the JSON; None where all of it is.

    Raises:
        RequestError: It is not such a body.
    """
    end = len(body) if header_bytes is None else header_bytes
    if end > len(body):
        raise RequestError(f"`Inference-Header-Content-Length` must be at most {len(body)}, the body's, got {end}.")
    view = memoryview(body)
    try:
        return _decode(view[:end]), view[end:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"The body does not fit the protocol: {error}.") from error


class ModelTensors:
    """The inputs and outputs of one policy, as the protocol names them."""

    def __init__(self, manifest: BundleManifest) -> None:
        """Take names and shapes from the manifest."""
        space = manifest.observation_space
        self._is_dict = isinstance(space, DictSpace)
        self._observations = {f"obs/{key}" if key else "obs": part for key, part in parts(space).items()}
        self._states = manifest.state
        self._optional = {*self._states, *(["episode_start"] if self._states else [])}
        if manifest.mask_size:
            self._optional.add("action_masks")
        self._outputs = [tensor.name for tensor in manifest.outputs]
        self._parameters = manifest.distribution.parameters
        self._has_value = manifest.has_value
        inputs = [_described(t.name, t.dtype, t.shape) for t in manifest.inputs if t.name != "action_masks"]
        if manifest.mask_size:
            inputs.insert(len(self._observations), _described("action_masks", "bool", (None, manifest.mask_size)))
        outputs = [_described(t.name, t.dtype, t.shape) for t in manifest.outputs]
        self.metadata = {"inputs": inputs, "outputs": outputs}
        """As in the answer to a request for metadata. -1 is the batch. Masks and state may be left out."""

    def read(self, request: TensorRequest, binary: memoryview) -> dict[str, np.ndarray]:
        """Return a request's tensors by name.

        Raises:
            PolicyInputError: A tensor is missing, unknown, or not what it says of itself.
        """
        arrays: dict[str, np.ndarray] = {}
        for tensor in request.inputs:
            if tensor.name in arrays or tensor.name not in self._observations.keys() | self._optional:
                known = ", ".join([*self._observations, *sorted(self._optional)])
                raise PolicyInputError(f"Inputs must be some of {known}, each once, got {tensor.name!r}.")
            size = tensor.parameters.get("binary_data_size")
            if size is None:
                arrays[tensor.name] = _from_json(tensor)
            else:
                arrays[tensor.name] = _from_bytes(tensor, binary, size)
                binary = binary[size:]
        if binary:
            raise PolicyInputError(f"Inputs must take up all the bytes behind the JSON, but {len(binary)} are left.")
        for name, part in self._observations.items():
            shape = arrays[name].shape if name in arrays else None
            if shape is None or len(shape) != len(part.shape) + 1:
                wanted = [-1, *part.shape]
                raise PolicyInputError(
                    f"The input `{name}` must have the shape {wanted}, got {shape}. -1 is the batch."
                )
        return arrays

    def rows(self, arrays: dict[str, np.ndarray]) -> int:
        """Return the size of the batch."""
        return len(arrays[next(iter(self._observations))])

    def arguments(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return what `PolicyRuntime.predict` takes for a request's tensors.

        Raises:
            PolicyInputError: Only a part of the state is there.
        """
        given = [name for name in self._states if name in arrays]
        if given and len(given) < len(self._states):
            raise PolicyInputError(f"State must be given whole or not at all: {', '.join(self._states)}.")
        named = {name.partition("/")[2]: arrays[name] for name in self._observations}
        return {
            "obs": named if self._is_dict else named[""],
            "state": tuple(arrays[name] for name in given) or None,
            "episode_start": arrays.get("episode_start"),
            "action_masks": arrays.get("action_masks"),
        }

    def answer(self, name: str, version: int, request: TensorRequest, prediction: Prediction) -> TensorAnswer:
        """Return a prediction as the protocol has it.

        Raises:
            PolicyInputError: An output is asked for that there is not.
        """
        arrays = self._arrays(prediction)
        wanted = request.outputs or [_Output(tensor) for tensor in arrays]
        outputs, chunks = [], []
        for output in wanted:
            array = arrays.get(output.name)
            if array is None:
                raise PolicyInputError(f"Outputs must be some of {', '.join(arrays)}, got {output.name!r}.")
            one: dict[str, Any] = {"name": output.name, "datatype": _NAMES[array.dtype.name], "shape": array.shape}
            if output.parameters.get("binary_data", request.parameters.binary_data_output):
                chunks.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
                one["parameters"] = {"binary_data_size": len(chunks[-1])}
            else:
                one["data"] = array.ravel().tolist()
            outputs.append(one)
        body: dict[str, Any] = {"model_name": name, "model_version": str(version), "outputs": outputs}
        if request.id is not None:
            body["id"] = request.id
        head = _encode(body)
        return TensorAnswer(b"".join([head, *chunks]), len(head)) if chunks else TensorAnswer(head, None)

    def _arrays(self, prediction: Prediction) -> dict[str, np.ndarray]:
        arrays = {"action": prediction.action, **{name: prediction.distribution[name] for name in self._parameters}}
        if self._has_value:
            arrays["value"] = prediction.value
        arrays |= {f"next_{name}": array for name, array in zip(self._states, prediction.state or (), strict=True)}
        return {name: arrays[name] for name in self._outputs}


def _described(name: str, dtype: str, shape: tuple[int | None, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": _NAMES[dtype], "shape": [-1 if size is None else size for size in shape]}


def _dtype(tensor: _Input) -> np.dtype[Any]:
    dtype = _DATATYPES.get(tensor.datatype)
    if dtype is None:
        known = ", ".join(_DATATYPES)
        raise PolicyInputError(f"The datatype of `{tensor.name}` must be one of {known}, got {tensor.datatype!r}.")
    return np.dtype(dtype)


def _from_json(tensor: _Input) -> np.ndarray:
    dtype = _dtype(tensor)
    if tensor.data is None:
        raise PolicyInputError(f"The input `{tensor.name}` must have `data`, or `binary_data_size` among parameters.")
    array = as_array(tensor.name, tensor.data)
    if array.size != math.prod(tensor.shape):
        raise PolicyInputError(f"The input `{tensor.name}` of shape {tensor.shape} has {array.size} elements.")
    if dtype.kind == "b" and not np.isin(array, (0, 1)).all():
        raise PolicyInputError(f"The input `{tensor.name}` must hold bools.")
    if dtype.kind == "b":
        return array.astype(bool).reshape(tensor.shape)
    return convert(tensor.name, array, dtype).reshape(tensor.shape)


def _from_bytes(tensor: _Input, binary: memoryview, size: Any) -> np.ndarray:
    dtype = _dtype(tensor)
    needed = dtype.itemsize * math.prod(tensor.shape)
    if type(size) is not int or size != needed or size > len(binary):
        raise PolicyInputError(
            f"The input `{tensor.name}` of shape {tensor.shape} and type {tensor.datatype} must have {needed} bytes, "
            f"got `binary_data_size` {size} and {len(binary)} bytes."
        )
    array = np.frombuffer(binary[:size], dtype.newbyteorder("<")).reshape(tensor.shape)
    # JSON before it has any length: what the runtime gets must be aligned, and in this machine's order.
    return array.astype(dtype, copy=not array.flags.aligned)
