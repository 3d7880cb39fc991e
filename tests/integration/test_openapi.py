"""What /openapi.json says holds: requests made from it, good and bad, are answered as it says, and never with a crash.

In process and without Ray: experiments are queued, and nothing trains. Streams, which do not end, are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from rlplatform.serve.app import create_app
from rlplatform.serve.documents import build_spec
from rlplatform.serve.gateway import open_gateway
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings
from rlplatform.store.experiments import ExperimentStore, Kind
from tests.unit.serve.policies import write_policy
from tests.unit.serve.service import DescribedRuns

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "6"))
"""Requests of each kind to each operation; more look harder."""
IN_CATALOGS = {"algorithm": "PPO", "environment": "CartPole-v1", "env_name": "CartPole-v1", "model_name": "plain"}
schemathesis.serializer.alias("application/zip", "application/octet-stream")


def _create(store: ExperimentStore, kind: Kind) -> str:
    spec = build_spec("ppo", "CartPole-v1", {}).model_dump(mode="json")
    return store.create(name="x", algorithm="ppo", env_id="CartPole-v1", spec=spec, seeds=(0,), kind=kind).id


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Return the OpenAPI document with its app, and the names of what is there: a model and an experiment."""
    home: Path = tmp_path_factory.mktemp("home")
    limits = ServeSettings(trusted_hosts=("*",), max_concurrent_experiments=1000)
    with open_gateway(limits, Settings(home=home), runs=DescribedRuns()) as gateway:
        schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(gateway))
        gateway.registry.publish("plain", write_policy(home / "bundle"))
        experiment, job = (_create(gateway.experiments, kind) for kind in ("experiment", "grpo"))
        known = {"id": experiment, "job_id": job, "name": "plain", "model": "plain", "number": 1, "alias": "champion"}
        yield schema.exclude(path="/experiments/{id}/metrics/stream"), known


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_service_keeps_to_its_openapi_document(service: tuple[Any, dict[str, Any]], mode: GenerationMode) -> None:
    schema, known = service
    failed: dict[str, str] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not operation.query and not operation.body:
            continue  # Nothing of it can be wrong.
        try:
            _examine(operation, mode, known)
        except FailureGroup as error:
            failed[operation.label] = str(error)
    assert not failed, "\n".join(f"{label}\n{error}" for label, error in failed.items())


def _examine(operation: Any, mode: GenerationMode, known: dict[str, Any]) -> None:
    """Send requests to one operation; about half of them name what is there."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), strategies.booleans())
    def examine(case: schemathesis.Case[Any], named: bool) -> None:
        if named:
            case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body.update({name: value for name, value in IN_CATALOGS.items() if name in case.body})
        if "wait_s" in {parameter.name for parameter in operation.query}:
            case.query["wait_s"] = (
                0  # Nothing carries out what is asked for, so waiting for it takes as long as it may.
            )
        case.call_and_validate(checks=CHECKS)

    examine()
