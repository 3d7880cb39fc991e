"""The Kubernetes files: Ray's resources by a schema of their fields, pods by Kubernetes' own, what they agree on."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from rlplatform.commands.options import parse_seeds
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.load import load_run_spec

with warnings.catch_warnings():  # Ray 2.60 uses what pydantic 2.14 calls deprecated
    warnings.simplefilter("ignore")
    from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kuberay"
SCHEMA = json.loads((Path(__file__).parent / "kuberay_schema.json").read_bytes())
KUBERNETES = "1.37"
CODE = "/opt/rlplatform"
"""Where deploy/Dockerfile puts the repository."""
RAY_FILES = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml")
GATED = """
  gcsFaultToleranceOptions:
    backend: rocksdb
    storage: {size: 5Gi}
"""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def ray_resource(name: str) -> dict[str, Any]:
    [document] = documents(name)
    return document


def cluster(resource: dict[str, Any]) -> dict[str, Any]:
    """Return the RayCluster's spec inside one of Ray's resources."""
    spec = resource["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def templates(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every pod template inside a document."""
    if isinstance(value, list):
        for item in value:
            yield from templates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("template", "submitterPodTemplate"):
                yield item
            else:
                yield from templates(item)


def pods() -> list[Any]:
    return [
        pytest.param(template, id=f"{path.name}-{number}")
        for path in sorted(FOLDER.glob("*.yaml"))
        for number, template in enumerate(templates(documents(path.name)))
    ]


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", ())}


@pytest.mark.parametrize("name", RAY_FILES)
def test_the_resources_of_ray_have_fields_that_kuberay_knows(name: str) -> None:
    jsonschema.validate(ray_resource(name), SCHEMA)


def test_the_schema_finds_a_typing_error() -> None:
    resource = ray_resource("raycluster.yaml")
    resource["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="'maxReplica' was unexpected"):
        jsonschema.validate(resource, SCHEMA)


def test_the_commented_alternative_to_redis_is_valid_too() -> None:
    text = (FOLDER / "raycluster.yaml").read_text(encoding="utf-8")
    assert "".join(f"\n  # {line[2:]}" for line in GATED.strip("\n").splitlines()) in text
    resource = ray_resource("raycluster.yaml")
    resource["spec"] |= yaml.safe_load(GATED)
    jsonschema.validate(resource, SCHEMA)


def test_what_ray_stands_on_is_valid_kubernetes() -> None:
    for document in documents("base.yaml"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("template", pods())
def test_every_pod_is_valid_and_may_do_little(template: dict[str, Any]) -> None:
    metadata = {"name": "x", **template.get("metadata", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert "automountServiceAccountToken" in spec
    volumes = {volume["name"] for volume in spec.get("volumes", ())} | {"data"}  # `data`: Redis's claim
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


@pytest.mark.parametrize("name", RAY_FILES)
def test_clusters_have_a_token_this_version_of_ray_and_a_home_on_the_shared_volume(name: str) -> None:
    resource = ray_resource(name)
    spec = cluster(resource)
    assert spec["authOptions"] == {"mode": "token", "secretName": "rlplatform-token"}
    assert spec["rayVersion"] == ray.__version__
    images = {template["spec"]["containers"][0]["image"] for template in templates(resource)}
    assert images == {"rlplatform:0.1.0"}
    claims = {document["metadata"]["name"] for document in documents("base.yaml")}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        shared = {volume["name"]: volume for volume in pod["volumes"]}["shared"]
        assert shared["persistentVolumeClaim"]["claimName"] in claims
        assert environment(pod["containers"][0])["RLPLATFORM_HOME"].startswith(mounts["shared"] + "/")


@pytest.mark.parametrize("name", RAY_FILES)
def test_no_file_holds_a_secret(name: str) -> None:
    for template in templates(ray_resource(name)):
        for container in template["spec"]["containers"]:
            for variable, value in environment(container).items():
                secret = any(word in variable for word in ("SECRET", "PASSWORD", "TOKEN", "DATABASE_URL"))
                assert isinstance(value, dict) is secret, variable


def test_the_job_runs_a_script_that_exists_on_a_spec_that_loads() -> None:
    python, script, config, *options = shlex.split(ray_resource("rayjob.yaml")["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / script.removeprefix(f"{CODE}/")).is_file()
    load_run_spec(ROOT / config.removeprefix(f"{CODE}/"))
    assert parse_seeds(options[options.index("--seeds") + 1]) == (1, 2, 3, 4)


def test_the_service_is_what_serve_takes_and_every_argument_is_a_setting() -> None:
    resource = ray_resource("rayservice.yaml")
    written = yaml.safe_load(resource["spec"]["serveConfigV2"])
    config = ServeDeploySchema.model_validate(written)
    assert written.keys() <= ServeDeploySchema.model_fields.keys()  # Serve passes over what it does not know.
    [application] = config.applications
    assert written["applications"][0].keys() <= type(application).model_fields.keys()
    assert application.import_path == "serve_app:build"
    assert "build" in (ROOT / "serve_app.py").read_text(encoding="utf-8")
    arguments = dict(application.args)
    head = cluster(resource)["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert arguments.pop("home") == environment(head)["RLPLATFORM_HOME"]
    settings = ServeSettings(**arguments, _env_file=None)
    assert not settings.is_open
    assert environment(head)["PYTHONPATH"] == CODE
