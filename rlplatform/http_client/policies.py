"""Policies: asking them for actions, and keeping them."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rlplatform.http_client.answers import AliasMove, Model, ModelMetadata, ModelVersion, Prediction
from rlplatform.http_client.plans import Call, Plan, perform, planned
from rlplatform.http_client.requests import Requests, given, segment
from rlplatform.http_client.tensors import decode_tensors, encode_tensors
from rlplatform.names import BUNDLE_JSON_FILE, BUNDLE_ONNX_FILE


class PolicyRequests(Requests):
    """Policies: asking them for actions, and keeping them."""

    @planned
    def predict(
        self,
        model_name: str,
        observation: Any,
        *,
        deterministic: bool = True,
        action_masks: Any = None,
        state: str | None = None,
        episode_start: bool | Sequence[bool] | None = None,
        seed: int | None = None,
    ) -> Plan[Prediction]:
        """Ask a policy for the action to an observation, or for those to a batch.

        Args:
            model_name: `name`, `name@alias` or `name@number`.
            observation: Of the observation space's shape; with one more axis, the first, for a batch. NumPy or lists.
            deterministic: Take the most likely action; else draw one.
            action_masks: True where an action is allowed.
            state: Recurrent state of the prediction before; `episode` keeps it by itself.
            episode_start: Where true, the state is cleared first.
            seed: Of the draw, to repeat it.
        """
        body = {
            "model_name": model_name,
            "observation": observation,
            "deterministic": deterministic,
            **given(action_masks=action_masks, state=state, episode_start=episode_start, seed=seed),
        }
        return predict(body, self.retries)

    @planned
    def infer(
        self,
        model_name: str,
        inputs: Mapping[str, np.ndarray],
        *,
        outputs: Sequence[str] | None = None,
        deterministic: bool = True,
        seed: int | None = None,
    ) -> Plan[dict[str, np.ndarray]]:
        """Ask a policy by the Open Inference Protocol, tensors as bytes both ways: the fast way for batches.

        Args:
            model_name: `name`, `name@alias` or `name@number`.
            inputs: Tensors by name, `[batch, …]`; `model_metadata` names them.
            outputs: Which tensors to return. None: all of them.
            deterministic: Take the most likely actions; else draw them.
            seed: Of the draw, to repeat it.
        """
        parameters = {"deterministic": deterministic, "binary_data_output": True, **given(seed=seed)}
        body, header_bytes = encode_tensors(inputs, outputs, parameters)
        headers = {"Inference-Header-Content-Length": str(header_bytes), "Content-Type": "application/octet-stream"}
        call = Call("POST", f"/v2/models/{segment(model_name)}/infer", content=body, headers=headers, repeatable=True)
        response = yield from perform(call, self.retries)
        return decode_tensors(response.content, response.headers.get("Inference-Header-Content-Length"))

    @planned
    def model_metadata(self, model_name: str) -> Plan[ModelMetadata]:
        """Return a model's versions and the tensors that it takes and gives."""
        return self._ask(ModelMetadata, "GET", f"/v2/models/{segment(model_name)}")

    @planned
    def list_models(self) -> Plan[list[Model]]:
        """Return every model."""
        answer = yield from self._ask(dict[str, list[Model]], "GET", "/models")
        return answer["models"]

    @planned
    def delete_model(self, model_name: str) -> Plan[None]:
        """Delete a model with all its versions."""
        return self._do(Call("DELETE", f"/models/{segment(model_name)}"))

    @planned
    def upload_model(self, model_name: str, bundle: str | os.PathLike[str]) -> Plan[ModelVersion]:
        """Publish a bundle as the next version of a model.

        Args:
            model_name: The model; a new name makes it.
            bundle: Folder of `policy.onnx` and `policy.json`; what else is in it stays here.
        """
        path = f"/models/{segment(model_name)}/versions"
        return self._ask(ModelVersion, "POST", path, content=_zipped(Path(bundle)))

    @planned
    def set_alias(self, model_name: str, alias: str, version: int, *, gate: bool = False) -> Plan[AliasMove]:
        """Point an alias at a version, such as `champion`, by which a model's name alone is understood.

        Args:
            model_name: The model.
            alias: A new name makes it.
            version: Its number.
            gate: Move it only if the version's evaluation is better than the present one's; else a `ConflictError`.
        """
        body = {"version": version, "gate": gate}
        return self._ask(AliasMove, "PUT", f"/models/{segment(model_name)}/aliases/{segment(alias)}", json=body)


class EpisodeRequests:
    """What can be asked of a policy in the course of one episode, or of a batch of episodes side by side."""

    def __init__(self, model_name: str, deterministic: bool, retries: int) -> None:
        """Begin, without a recurrent state."""
        self.model_name = model_name
        self.state: str | None = None
        self._deterministic, self._retries = deterministic, retries

    @planned
    def act(
        self, observation: Any, *, action_masks: Any = None, episode_start: Sequence[bool] | None = None
    ) -> Plan[Prediction]:
        """Return the policy's answer to the next observation.

        Args:
            observation: Of the observation space's shape; with one more axis, the first, for a batch.
            action_masks: True where an action is allowed.
            episode_start: For a batch: which of its episodes begin anew.
        """
        body = {
            "model_name": self.model_name,
            "observation": observation,
            "deterministic": self._deterministic,
            **given(action_masks=action_masks, state=self.state, episode_start=episode_start),
        }
        prediction = yield from predict(body, self._retries)
        self.state = prediction.state
        return prediction


def predict(body: Mapping[str, Any], retries: int) -> Plan[Prediction]:
    """Ask POST /inference."""
    call = Call("POST", "/inference", json=body, repeatable=True)
    response = yield from perform(call, retries)
    prediction = msgspec.json.decode(response.content, type=Prediction)
    return msgspec.structs.replace(prediction, model=response.headers.get("X-Model-Version"))


def _zipped(bundle: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (BUNDLE_ONNX_FILE, BUNDLE_JSON_FILE):
            archive.write(bundle / name, name)
    return buffer.getvalue()
