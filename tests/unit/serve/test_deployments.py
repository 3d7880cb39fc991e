"""/api/v1/models/{name}/deploy, with a fleet that only writes down what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlplatform.serve.app import create_app, create_model_app
from rlplatform.serve.fleet import DeploymentState
from rlplatform.store.deployments import Deployment
from tests.unit.serve.policies import write_policy
from tests.unit.serve.service import Service, service

PATH = "/api/v1/models/demo/deploy"


@dataclass
class NotedFleet:
    """What was asked of a fleet; all of it runs at once."""

    there: dict[str, Deployment] = field(default_factory=dict)

    def deploy(self, deployment: Deployment) -> None:
        self.there[deployment.model] = deployment

    def remove(self, model: str) -> None:
        self.there.pop(model, None)

    def states(self) -> Mapping[str, DeploymentState]:
        return {model: DeploymentState("running", "", one.replicas) for model, one in self.there.items()}


@pytest.fixture
def fleet() -> NotedFleet:
    return NotedFleet()


@pytest.fixture
def served(tmp_path: Path, fleet: NotedFleet) -> Iterator[Service]:
    with service(tmp_path / "home", max_cpus=8) as plain:
        gateway = replace(plain.gateway, fleet=fleet)
        for value in (1.0, 2.0):
            gateway.registry.publish("demo", write_policy(tmp_path / str(value), value=value))
        gateway.registry.set_alias("demo", "champion", 1)
        yield Service(gateway, create_app(gateway))


@pytest.mark.parametrize(
    ("which", "reference"), [({}, "demo"), ({"alias": "champion"}, "demo@champion"), ({"version": 2}, "demo@2")]
)
def test_a_deployment_is_begun_kept_and_written_to_the_audit_log(
    served: Service, fleet: NotedFleet, which: dict[str, Any], reference: str
) -> None:
    answer = served.json("POST", PATH, 202, json={"replicas": 2, "cpus": 1.5, **which})
    assert (answer["status"], answer["running_replicas"], answer["path"]) == ("running", 2, "/deployments/demo")
    assert fleet.there["demo"].reference == reference
    assert served.gateway.deployments.get("demo") == fleet.there["demo"]
    (entry,) = served.gateway.audit.list(action="deployment.set").items
    assert entry.target == "demo"
    assert entry.detail == {"reference": reference, "replicas": 2, "cpus": 1.5}


def test_a_second_one_replaces_the_first(served: Service) -> None:
    served.json("POST", PATH, 202, json={"version": 1})
    served.json("POST", PATH, 202, json={"version": 2, "replicas": 3})
    (listed,) = served.json("GET", "/api/v1/deployments")["deployments"]
    assert (listed["reference"], listed["replicas"]) == ("demo@2", 3)
    assert served.json("GET", PATH) == listed


def test_one_that_is_removed_is_gone(served: Service, fleet: NotedFleet) -> None:
    served.json("POST", PATH, 202, json={})
    served.json("DELETE", PATH)
    assert fleet.there == {}
    assert "POST" in served.json("DELETE", PATH, 404)["message"]
    assert served.json("GET", PATH, 404)["error"] == "ModelNotFound"


@pytest.mark.parametrize(
    ("which", "path"),
    [({}, "/models/demo"), ({"version": 2}, "/models/demo"), ({"alias": "champion"}, "/models/demo/aliases/champion")],
)
def test_what_is_deployed_is_not_deleted(served: Service, which: dict[str, Any], path: str) -> None:
    served.json("POST", PATH, 202, json=which)
    assert "DELETE /api/v1/models/demo/deploy" in served.json("DELETE", path, 409)["message"]
    assert served.gateway.registry.resolve("demo@champion").bundle_path.is_dir()
    served.json("DELETE", PATH)
    served.json("DELETE", path)


def test_one_that_serve_has_lost_says_so(served: Service, fleet: NotedFleet) -> None:
    served.json("POST", PATH, 202, json={})
    fleet.there.clear()
    assert served.json("GET", PATH)["status"] == "missing"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PATH, {"alias": "champion", "version": 1}, 422),
        (PATH, {"replicas": 0}, 422),
        (PATH, {"cpus": -1}, 422),
        (PATH, {"version": 9}, 404),
        (PATH, {"alias": "nobody"}, 404),
        (PATH, {"alias": "../x"}, 400),
        (PATH, {"replicas": 3, "cpus": 3}, 429),
        ("/api/v1/models/absent/deploy", {}, 404),
    ],
)
def test_what_cannot_be_deployed_is_refused_and_changes_nothing(
    served: Service, fleet: NotedFleet, path: str, body: dict[str, Any], status: int
) -> None:
    served.json("POST", path, status, json=body)
    assert fleet.there == {}
    assert served.gateway.deployments.list() == ()


def test_without_ray_serve_it_is_refused(tmp_path: Path) -> None:
    with service(tmp_path / "home") as plain:
        plain.gateway.registry.publish("demo", write_policy(tmp_path / "bundle"))
        assert "rlplatform serve" in plain.json("POST", PATH, 503, json={})["message"]
        assert plain.gateway.deployments.list() == ()


def test_only_an_admin_deploys(tmp_path: Path) -> None:
    with service(tmp_path / "home", require_auth=True) as closed:
        secrets = {scope: closed.gateway.keys.create(scope, scopes=(scope,)).secret for scope in ("train", "read")}
        assert closed.ask("POST", PATH, secrets["train"], json={}).status_code == 403
        assert closed.ask("DELETE", PATH, secrets["train"]).status_code == 403
        assert closed.ask("GET", "/api/v1/deployments", secrets["read"]).status_code == 200


def test_a_deployments_own_app_answers_under_its_prefix_behind_the_same_gate(served: Service) -> None:
    app = create_model_app(served.gateway)

    async def ask(method: str, path: str, **request: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app, root_path="/deployments/demo")
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, f"/deployments/demo{path}", **request)

    body = {"model_name": "demo@2", "observation": [0.0, 0.0, 0.0, 0.0]}
    answered = asyncio.run(ask("POST", "/inference", json=body))
    assert (answered.status_code, answered.json()["value"]) == (200, 2.0)
    assert asyncio.run(ask("GET", "/health")).status_code == 200
    assert asyncio.run(ask("GET", "/v2/models/demo/ready")).status_code == 200
    assert asyncio.run(ask("POST", "/experiments", json={})).status_code == 404
