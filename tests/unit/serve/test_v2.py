"""The Open Inference Protocol: by hand, and with Triton's own client."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rlplatform.serve.services import InferenceLimits, Services
from tests.unit.serve.policies import HIDDEN, get, post, registry_of, served, services_of

ROWS = np.array([[0.25, 1.0, 0.0, -3.0], [2.0, 1.0, 0.0, 0.0]], np.float32)
OBS = {"name": "obs", "shape": [2, 4], "datatype": "FP32"}
PLAIN = "/v2/models/plain/infer"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    registry = registry_of(tmp_path_factory.mktemp("serve"), plain={"value": 0.5}, memory={"memory": True})
    with services_of(registry, InferenceLimits(max_batch=64)) as services:
        yield services


def infer(services: Services, *inputs: dict[str, Any], path: str = PLAIN, **body: Any) -> dict[str, Any]:
    answer = post(services, path, json={"inputs": inputs, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v2", {"name": "rlplatform", "extensions": ["binary_tensor_data", "model_repository"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/plain/ready", {"name": "plain", "ready": True}),
        ("/v2/models/plain/versions/1/ready", {"ready": True}),
        ("/v2/models/plain@1", {"name": "plain@1", "versions": ["1"], "platform": "onnxruntime_onnx"}),
    ],
)
def test_the_server_and_its_models_describe_themselves(path: str, fields: dict[str, Any], services: Services) -> None:
    answer = get(services, path)
    assert answer.status_code == 200
    assert fields.items() <= answer.json().items()


def test_metadata_names_every_tensor_that_may_be_given(services: Services) -> None:
    metadata = get(services, "/v2/models/memory").json()
    assert metadata["inputs"] == [
        {"name": "obs", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "action_masks", "datatype": "BOOL", "shape": [-1, 2]},
        {"name": "state/h", "datatype": "FP32", "shape": [1, -1, HIDDEN]},
        {"name": "episode_start", "datatype": "BOOL", "shape": [-1]},
    ]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["action", "logits", "value", "next_state/h"]


def test_the_index_lists_every_version(services: Services) -> None:
    index = post(services, "/v2/repository/index", json={"ready": True}).json()
    assert {"name": "plain", "version": "1", "state": "READY", "reason": ""} in index
    assert post(services, "/v2/repository/index").json() == index


@pytest.mark.parametrize("data", [ROWS.ravel().tolist(), ROWS.tolist()], ids=["flat", "nested"])
def test_tensors_go_and_come_in_json(data: list[Any], services: Services) -> None:
    answer = infer(services, OBS | {"data": data}, id="call 7")
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("plain", "1", "call 7")
    assert answer["outputs"] == [
        {"name": "action", "datatype": "INT64", "shape": [2], "data": [1, 0]},
        {"name": "logits", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 1.0, 2.0, 1.0]},
        {"name": "value", "datatype": "FP32", "shape": [2], "data": [0.5, 0.5]},
    ]


def test_masks_and_chosen_outputs(services: Services) -> None:
    masks = {"name": "action_masks", "shape": [2, 2], "datatype": "BOOL", "data": [True, False, True, True]}
    answer = infer(services, OBS | {"data": ROWS.tolist()}, masks, outputs=[{"name": "action"}])
    assert answer["outputs"] == [{"name": "action", "datatype": "INT64", "shape": [2], "data": [0, 0]}]


def test_state_is_a_tensor_like_others(services: Services) -> None:
    path = "/v2/models/memory/infer"
    one = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    state = infer(services, one, path=path)["outputs"][-1]
    assert (state["name"], state["shape"], state["data"]) == ("next_state/h", [1, 1, HIDDEN], [4.0] * HIDDEN)
    state["name"] = "state/h"
    assert infer(services, one, state, path=path)["outputs"][-1]["data"] == [8.0] * HIDDEN
    start = {"name": "episode_start", "shape": [1], "datatype": "BOOL", "data": [True]}
    assert infer(services, one, state, start, path=path)["outputs"][-1]["data"] == [4.0] * HIDDEN


def test_a_seed_repeats_a_draw(services: Services) -> None:
    rows = {"name": "obs", "shape": [64, 4], "datatype": "FP32", "data": [0.0] * 256}
    drawn = [
        infer(services, rows, parameters={"deterministic": False, "seed": seed})["outputs"][0]["data"]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


BAD: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b"{", 422, "does not fit the protocol"),
    "no inputs": ({"inputs": []}, 400, r"`obs` must have the shape \[-1, 4\], got None"),
    "no data": ({"inputs": [OBS]}, 400, "must have `data`"),
    "unknown input": ({"inputs": [OBS | {"name": "image"}]}, 400, "Inputs must be some of obs, action_masks"),
    "twice": ({"inputs": [OBS | {"data": [0] * 8}] * 2}, 400, "each once"),
    "too few": ({"inputs": [OBS | {"data": [0] * 7}]}, 400, "has 7 elements"),
    "no batch axis": ({"inputs": [OBS | {"shape": [4], "data": [0] * 4}]}, 400, r"got \(4,\)"),
    "empty batch": ({"inputs": [OBS | {"shape": [0, 4], "data": []}]}, 400, "must have the shape"),
    "large batch": ({"inputs": [OBS | {"shape": [65, 4], "data": [0] * 260}]}, 413, "at most 64"),
    "negative size": ({"inputs": [OBS | {"shape": [-1, 4], "data": []}]}, 422, "does not fit the protocol"),
    "text": ({"inputs": [OBS | {"data": ["a"] * 8}]}, 400, "must hold numbers"),
    "datatype": ({"inputs": [OBS | {"datatype": "BYTES", "data": [0] * 8}]}, 400, "must be one of BOOL"),
    "output": ({"inputs": [OBS | {"data": [0] * 8}], "outputs": [{"name": "loss"}]}, 400, "Outputs must be some of"),
    "size without bytes": ({"inputs": [OBS | {"parameters": {"binary_data_size": 32}}]}, 400, "got .* and 0 bytes"),
    "size in words": ({"inputs": [OBS | {"parameters": {"binary_data_size": "32"}}]}, 400, "must have 32 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_the_protocols_form(case: str, services: Services) -> None:
    body, status, message = BAD[case]
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = post(services, PLAIN, **sent)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert re.search(message, answer.json()["error"])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"Inference-Header-Content-Length": "x"}, "must be a number of bytes"),
        ({"Inference-Header-Content-Length": "999999"}, "must be at most"),
        ({"Inference-Header-Content-Length": "2"}, "does not fit"),
        ({"Content-Encoding": "gzip"}, "must not be compressed"),
    ],
)
def test_wrong_headers_are_refused(header: dict[str, str], message: str, services: Services) -> None:
    answer = post(services, PLAIN, json={"inputs": [OBS | {"data": [0] * 8}]}, headers=header)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


@pytest.mark.parametrize("path", ["plane", "plain/versions/2", "plain/versions/x", "plain@1/versions/1"])
def test_an_unknown_model_or_version_is_not_found(path: str, services: Services) -> None:
    for suffix in ("", "/ready"):
        answer = get(services, f"/v2/models/{path}{suffix}")
        assert answer.status_code == 404, answer.text
        assert "error" in answer.json()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tritons_client_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tritonclient import http as triton
        from tritonclient.utils import InferenceServerException
    registry = registry_of(tmp_path_factory.mktemp("triton"), plain={"value": 0.5})
    with services_of(registry) as services, served(services) as address:
        client = triton.InferenceServerClient(address)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("plain")
        assert client.is_model_ready("plain", "1")
        assert not client.is_model_ready("plane")
        assert client.get_server_metadata()["name"] == "rlplatform"
        assert client.get_model_metadata("plain")["inputs"][0]["name"] == "obs"
        assert client.get_model_repository_index() == [
            {"name": "plain", "version": "1", "state": "READY", "reason": ""}
        ]
        for binary in (True, False):
            obs = triton.InferInput("obs", [2, 4], "FP32")
            obs.set_data_from_numpy(ROWS, binary_data=binary)
            masks = triton.InferInput("action_masks", [2, 2], "BOOL")
            masks.set_data_from_numpy(np.array([[True, False], [True, True]]), binary_data=binary)
            asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("action", "value")]
            result = client.infer("plain", [obs, masks], outputs=asked, request_id="7")
            assert result.as_numpy("action").tolist() == [0, 0]
            assert result.as_numpy("value").tolist() == [0.5, 0.5]
            assert result.get_response()["id"] == "7"
            assert client.infer("plain", [obs]).as_numpy("action").tolist() == [1, 0]
        with pytest.raises(InferenceServerException, match="No model 'plane'"):
            client.infer("plane", [obs])
        client.close()
