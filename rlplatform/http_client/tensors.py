"""Tensors of the Open Inference Protocol, version 2, as bytes behind the JSON.

Source: Triton Inference Server, extension binary_tensor_data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from rlplatform.errors import RequestError

_DATATYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{
        f"{kind}{bits}": np.dtype(f"<{code}{bits // 8}")
        for kind, code in (("INT", "i"), ("UINT", "u"))
        for bits in (8, 16, 32, 64)
    },
}
_NAMES = {dtype.newbyteorder("="): name for name, dtype in _DATATYPES.items()}


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]


def encode_tensors(
    inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None, parameters: Mapping[str, Any]
) -> tuple[bytes, int]:
    """Return the body of a request, and how many of its bytes are JSON.

    Raises:
        RequestError: An array has a dtype that the protocol does not know.
    """
    tensors, chunks = [], []
    for name, given in inputs.items():
        array = np.asarray(given)
        datatype = _NAMES.get(array.dtype.newbyteorder("="))
        if datatype is None:
            raise RequestError(
                f"`{name}` must have one of the dtypes {', '.join(map(str, _NAMES))}, got {array.dtype}."
            )
        chunks.append(array.astype(_DATATYPES[datatype], copy=False).tobytes())
        size = {"binary_data_size": len(chunks[-1])}
        tensors.append({"name": name, "datatype": datatype, "shape": array.shape, "parameters": size})
    body: dict[str, Any] = {"inputs": tensors, "parameters": parameters}
    if outputs is not None:
        body["outputs"] = [{"name": name} for name in outputs]
    header = msgspec.json.encode(body)
    return b"".join([header, *chunks]), len(header)


def decode_tensors(body: bytes, header_length: str | None) -> dict[str, np.ndarray]:
    """Return the outputs of an answer by name; the arrays are views of `body`, not to be written to.

    Args:
        body: The whole answer.
        header_length: How many of its bytes are JSON. None: all of them.
    """
    at = len(body) if header_length is None else int(header_length)
    arrays = {}
    for tensor in msgspec.json.decode(memoryview(body)[:at], type=_Answer).outputs:
        dtype, size = _DATATYPES[tensor.datatype], tensor.parameters.get("binary_data_size")
        if size is None:
            array = np.array(tensor.data, dtype)
        else:
            array = np.frombuffer(body, dtype, size // dtype.itemsize, at)
            at += size
        arrays[tensor.name] = array.reshape(tensor.shape)
    return arrays
