"""From a prediction to the JSON of an answer, and recurrent state as a text that clients give back as it is."""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from rlplatform.errors import PolicyInputError
from rlplatform.policy.bundle import BundleManifest
from rlplatform.policy.runtime import Prediction, State

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct):
    """The body of an answer. For a batch, each field has one entry for each observation."""

    action: Any
    """For the environment: an integer, or nested lists of the action space's shape."""
    action_probs: Any
    """The probability of each choice: `[n]`; `[[n_1], [n_2], …]` for several; of each bit. None where actions are not
    choices, or the policy has values and no probabilities."""
    value: Any
    """The critic's estimate of the return; None without a critic of states."""
    state: str | msgspec.UnsetType = msgspec.UNSET
    """Recurrent state, only of policies with memory: to be given back with the next observation, as it is."""


class AnswerEncoder:
    """Encodes the answers of one policy."""

    def __init__(self, manifest: BundleManifest) -> None:
        """Prepare for a policy's distribution."""
        self.state = StateText(manifest) if manifest.state else None
        self._probabilities = _probabilities(manifest)

    def encode(self, prediction: Prediction) -> bytes:
        """Return a prediction as JSON. Floats keep their exact values."""
        probabilities = self._probabilities(prediction.distribution) if self._probabilities else None
        value = None if prediction.value is None else prediction.value.tolist()
        answer = Answer(prediction.action.tolist(), probabilities, value)
        if self.state is not None and prediction.state is not None:
            answer.state = self.state.write(prediction.state)
        return _encode(answer)


class StateText:
    """Recurrent state as bytes: its arrays after one another, little-endian float32, row-major; in JSON, as base64."""

    def __init__(self, manifest: BundleManifest) -> None:
        """Take the arrays' sizes from the manifest."""
        shapes = [tensor.shape for tensor in manifest.inputs if tensor.name in manifest.state]
        self._shapes = [(shape[0] or 1, shape[2] or 1) for shape in shapes]
        self.bytes_each = 4 * sum(layers * size for layers, size in self._shapes)
        """Of one episode."""

    def write(self, state: State) -> str:
        """Return state as text."""
        return binascii.b2a_base64(self.write_bytes(state), newline=False).decode()

    def write_bytes(self, state: State) -> bytes:
        """Return state as bytes."""
        return b"".join(array.astype("<f4", copy=False).tobytes() for array in state)

    def read(self, text: str, n: int) -> State:
        """Return the state of `n` episodes.

        Raises:
            PolicyInputError: It is not base64, or not of exactly the right size.
        """
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:
            raise PolicyInputError(f"`state` must be base64: {error}. Give back the last answer's.") from error
        return self.read_bytes(data, n)

    def read_bytes(self, data: bytes, n: int) -> State:
        """Return the state of `n` episodes.

        Raises:
            PolicyInputError: It is not of exactly the right size.
        """
        if len(data) != n * self.bytes_each:
            raise PolicyInputError(
                f"`state` must have {n * self.bytes_each} bytes for {n} observations, got {len(data)}. "
                "Give back the last answer's."
            )
        ends = np.cumsum([layers * n * size for layers, size in self._shapes])
        flat = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
        arrays = np.split(flat, ends[:-1])
        return tuple(a.reshape(layers, n, size) for a, (layers, size) in zip(arrays, self._shapes, strict=True))


def _probabilities(manifest: BundleManifest) -> Callable[[dict[str, np.ndarray]], Any] | None:
    nvec = manifest.distribution.nvec
    ends = np.cumsum(nvec)

    def choices(parameters: dict[str, np.ndarray]) -> Any:
        return _softmax(parameters["logits"])

    def several(parameters: dict[str, np.ndarray]) -> Any:
        logits = parameters["logits"]
        each = [_softmax(logits[..., end - n : end]) for n, end in zip(nvec, ends, strict=True)]
        return each if logits.ndim == 1 else [list(row) for row in zip(*each, strict=True)]

    def bits(parameters: dict[str, np.ndarray]) -> Any:
        # tanh does not overflow, exp does.
        return (0.5 + 0.5 * np.tanh(0.5 * parameters["logits"])).tolist()

    match manifest.distribution.type:
        case "categorical":
            return choices
        case "multi_categorical":
            return several
        case "bernoulli":
            return bits
        case _:
            return None


def _softmax(logits: np.ndarray) -> Any:
    if logits.ndim == 1 and len(logits) < 64:
        # NumPy takes three times as long for a handful of numbers.
        scores = logits.tolist()
        top = max(scores)
        scores = [math.exp(score - top) for score in scores]
        total = sum(scores)
        return [score / total for score in scores]
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exps / exps.sum(axis=-1, keepdims=True)).tolist()
