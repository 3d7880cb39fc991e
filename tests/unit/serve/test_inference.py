"""POST /inference: what the GRPO API documents, and what it grew."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rlplatform.policy.export import export_bundle
from rlplatform.policy.runtime import PolicyRuntime
from rlplatform.serve.routers.inference import inference_router
from rlplatform.serve.services import InferenceLimits, Services
from rlplatform.serve.shortcut import Shortcut
from rlplatform.specs.settings import Settings
from rlplatform.store.registry import open_registry
from tests.unit.policy import zoo
from tests.unit.serve.policies import HIDDEN, app_of, get, post, registry_of, run_with_client, services_of, write_policy

OBS = [0.25, 1.0, 0.0, -3.0]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    registry = registry_of(tmp_path_factory.mktemp("serve"), plain={"value": 0.5}, memory={"memory": True})
    with services_of(registry, InferenceLimits(max_batch=64)) as services:
        yield services


def ask(services: Services, **body: Any) -> Any:
    answer = post(services, "/inference", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_answer_has_the_documented_fields_and_no_others(services: Services) -> None:
    answer = post(services, "/inference", json={"model_name": "plain", "observation": OBS, "deterministic": True})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-model-version"] == "plain@1"
    e = math.exp(0.75)
    assert answer.json() == {"action": 1, "action_probs": pytest.approx([1 / (1 + e), e / (1 + e)]), "value": 0.5}


def test_a_batch_is_answered_row_by_row(services: Services) -> None:
    rows = [OBS, [2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    batch = ask(services, model_name="plain", observation=rows)
    for index, row in enumerate(rows):
        one = ask(services, model_name="plain", observation=row)
        assert batch["action"][index] == one["action"]
        assert batch["action_probs"][index] == pytest.approx(one["action_probs"])
        assert batch["value"][index] == one["value"]


def test_draws_follow_the_probabilities_and_a_seed_repeats_them(services: Services) -> None:
    request = {"model_name": "plain", "observation": [OBS] * 64, "deterministic": False}
    drawn = ask(services, **request, seed=3)["action"]
    assert drawn == ask(services, **request, seed=3)["action"]
    assert drawn != ask(services, **request, seed=4)["action"]
    assert 0.3 < np.mean(drawn) < 0.98  # Expected 0.68.


def test_masked_actions_are_not_taken(services: Services) -> None:
    answer = ask(services, model_name="plain", observation=OBS, action_masks=[True, False])
    assert answer["action"] == 0
    assert answer["action_probs"] == pytest.approx([1.0, 0.0])
    batch = ask(services, model_name="plain", observation=[OBS, OBS], action_masks=[[1, 0], [1, 1]])
    assert batch["action"] == [0, 1]


def test_state_goes_to_the_client_and_back(services: Services) -> None:
    first = ask(services, model_name="memory", observation=[1, 1, 1, 1])
    second = ask(services, model_name="memory", observation=[1, 1, 1, 1], state=first["state"])
    again = ask(services, model_name="memory", observation=[1, 1, 1, 1], state=first["state"], episode_start=True)
    assert [first["value"], second["value"], again["value"]] == [4.0, 8.0, 4.0]


def test_a_version_and_an_alias_can_be_asked_for(services: Services) -> None:
    services.registry.set_alias("plain", "candidate", 1)
    for reference in ("plain", "plain@1", "plain@candidate"):
        assert ask(services, model_name=reference, observation=OBS)["action"] == 1


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown model": ({"model_name": "plane"}, 404, "Did you mean 'plain'"),
    "unknown version": ({"model_name": "plain@7"}, 404, "no version 7"),
    "unknown alias": ({"model_name": "plain@nobody"}, 404, "no alias 'nobody'"),
    "path as a name": ({"model_name": "../../etc/passwd"}, 400, "A model's name must be"),
    "wrong shape": ({"observation": [1.0]}, 400, r"`observation` must have the shape \(4,\)"),
    "text": ({"observation": ["a"] * 4}, 400, "must hold numbers"),
    "null": ({"observation": None}, 400, "must hold numbers"),
    "ragged": ({"observation": [[1.0], 1.0]}, 400, "must be an array of numbers"),
    "too large a batch": ({"observation": [OBS] * 65}, 413, "at most 64 observations, got 65"),
    "mask shape": ({"action_masks": [True]}, 400, "`action_masks` must have the shape"),
    "state without memory": ({"state": ""}, 400, "has no memory"),
    "state of another size": ({"model_name": "memory", "state": "AAAA"}, 400, f"must have {4 * HIDDEN} bytes"),
    "state that is not base64": ({"model_name": "memory", "state": "?"}, 400, "must be base64"),
    "a field too many": ({"determinstic": True}, 422, "unknown field `determinstic`"),
    "a type": ({"deterministic": "yes"}, 422, r"Expected `bool`, got `str`"),
    "negative seed": ({"seed": -1}, 422, "seed"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_words(case: str, services: Services) -> None:
    fields, status, message = BAD[case]
    answer = post(services, "/inference", json={"model_name": "plain", "observation": OBS} | fields)
    assert answer.status_code == status, answer.text
    assert re.search(message, answer.json()["detail"]), answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"model_name": "plain"}',
        b'{"model_name":"plain","observation":[NaN,0,0,0]}',
        b"[" * 9999,
    ],
    ids=["nothing", "a list", "cut", "not UTF-8", "no observation", "NaN", "deep"],
)
def test_a_body_that_is_not_such_json_is_unprocessable(body: bytes, services: Services) -> None:
    answer = post(services, "/inference", content=body)
    assert answer.status_code == 422
    assert "The body does not fit" in answer.json()["detail"]


def test_a_body_that_comes_in_parts_is_put_together(services: Services) -> None:
    body = json.dumps({"model_name": "plain", "observation": OBS}).encode()

    async def parts() -> Any:
        for byte in body:
            yield bytes([byte])

    assert post(services, "/inference", content=parts()).json()["action"] == 1


def test_only_post_is_taken(services: Services) -> None:
    assert get(services, "/inference").status_code == 405


def test_what_takes_long_is_evaluated_in_a_thread_with_the_same_answer(services: Services) -> None:
    here = ask(services, model_name="plain", observation=[OBS] * 3)
    model = services.models.loaded()[-1]
    rows, model.loop_rows = model.loop_rows, 0
    try:
        assert ask(services, model_name="plain", observation=[OBS] * 3) == here
    finally:
        model.loop_rows = rows


def test_the_body_is_documented_though_the_route_parses_it(services: Services) -> None:
    operation = app_of(services).openapi()["paths"]["/inference"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) >= {"model_name", "observation", "deterministic"}
    assert {"200", "400", "404", "413", "422"} <= set(operation["responses"])


def test_the_shortcut_past_the_router_changes_no_answer(services: Services) -> None:
    app = app_of(services)
    app.add_middleware(Shortcut, router=inference_router(services))
    for body in ({"model_name": "plain", "observation": OBS}, {"model_name": "plane", "observation": OBS}, {}):

        async def ask_it(client: httpx.AsyncClient, body: Any = body) -> httpx.Response:
            return await client.post("/inference", json=body)

        past, through = run_with_client(services, ask_it, app), run_with_client(services, ask_it)
        assert past.status_code == through.status_code
        assert past.headers == through.headers
        assert past.json() | {"timestamp": ""} == through.json() | {"timestamp": ""}


def test_the_shortcut_takes_nothing_but_the_routes_it_was_given(services: Services) -> None:
    app = app_of(services)
    app.add_middleware(Shortcut, router=inference_router(services))

    async def statuses(client: httpx.AsyncClient) -> list[int]:
        return [
            (await client.get("/inference")).status_code,
            (await client.get("/v2")).status_code,
            (await client.post("/inference/other")).status_code,
        ]

    assert run_with_client(services, statuses, app) == [405, 200, 404]


CASES = [
    zoo.Case("ppo", "dict", "MultiDiscrete"),
    zoo.Case("ppo", "discrete", "MultiBinary"),
    zoo.Case("sac", "box", "Box"),
    zoo.Case("dqn", "image", "Discrete"),
    zoo.Case("maskable_ppo", "box", "MultiDiscrete"),
    zoo.Case("recurrent_ppo", "box", "Discrete"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kind_of_policy_answers_as_its_runtime(case: zoo.Case, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    export_bundle(zoo.make_model(case), None, folder)
    registry = open_registry(Settings(home=tmp_path))
    registry.publish("policy", folder)
    obs = zoo.observations(zoo.OBSERVATIONS[case.observation], 2)
    expected = PolicyRuntime.load(folder).predict(obs)
    plain = {key: part.tolist() for key, part in obs.items()} if isinstance(obs, dict) else obs.tolist()

    async def both(client: httpx.AsyncClient) -> tuple[Any, Any]:
        one = {key: part[0] for key, part in plain.items()} if isinstance(plain, dict) else plain[0]
        answers = [
            await client.post("/inference", json={"model_name": "policy", "observation": given})
            for given in (plain, one)
        ]
        return answers[0].json(), answers[1].json()

    with services_of(registry) as services:
        batch, one = run_with_client(services, both)
    np.testing.assert_allclose(batch["action"], expected.action, rtol=1e-6)
    np.testing.assert_allclose(one["action"], expected.action[0], rtol=1e-5, atol=1e-6)
    choices = case.algorithm in ("ppo", "maskable_ppo", "recurrent_ppo")
    assert (batch["action_probs"] is not None) == choices
    if choices and case.action == "MultiDiscrete":
        assert [[sum(each) for each in row] for row in batch["action_probs"]] == [[pytest.approx(1.0)] * 3] * 2
    if expected.value is not None:
        np.testing.assert_allclose(batch["value"], expected.value, rtol=1e-6)
    assert ("state" in one) == (case.algorithm == "recurrent_ppo")


def test_a_replica_imports_neither_torch_nor_sb3_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys, rlplatform.serve.routers.inference, rlplatform.serve.routers.v2, rlplatform.serve.routers.stream\n"
        "from pathlib import Path\n"
        "from rlplatform.specs.settings import Settings\n"
        "from rlplatform.store.registry import open_registry\n"
        "from rlplatform.serve.models import LoadedModel\n"
        f"LoadedModel(open_registry(Settings(home=Path({str(tmp_path)!r}))).resolve('plain'))\n"
        "print(sorted(sys.modules))"
    )
    with services_of(open_registry(Settings(home=tmp_path))) as services:
        services.registry.publish("plain", write_policy(tmp_path / "bundle"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stdout.strip("[]\n").replace("'", "").split(", ")}
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "stable_baselines3", "sb3_contrib", "ray", "gymnasium"}


def test_a_cancelled_request_does_not_cancel_the_look_up_for_others(services: Services) -> None:
    async def main() -> str:
        services.models.forget("plain")
        first = asyncio.ensure_future(services.models.get("plain"))
        second = asyncio.ensure_future(services.models.get("plain"))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).version.reference

    assert asyncio.run(main()) == "plain@1"
