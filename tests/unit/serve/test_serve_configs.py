"""The config files of `serve deploy`, read as Ray reads them, but more strictly, and built as Ray builds them."""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from rlplatform.serve.settings import load_serve_settings

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs" / "serve").glob("*.yaml"))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's models use what pydantic has deprecated.
    from ray.serve.schema import ServeDeploySchema

    from rlplatform.serve.deployment import APP_NAME, build


def read(path: Path) -> dict[str, Any]:
    """Return a file's content."""
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the pydantic models that a field's type speaks of."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def unknown_keys(content: Any, models: list[type[BaseModel]], at: str = "") -> Iterator[str]:
    """Return the paths of keys that no model knows; Ray ignores some of them without a word."""
    if isinstance(content, list):
        for item in content:
            yield from unknown_keys(item, models, at)
    if not isinstance(content, dict) or not models:
        return
    for key, value in content.items():
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if not fields:
            yield f"{at}{key}"
        inner = [model for one in fields for model in models_in(one.annotation)]
        yield from unknown_keys(value, inner, f"{at}{key}.")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ray_takes_the_file_and_knows_every_key(path: Path) -> None:
    content = read(path)
    schema = ServeDeploySchema.model_validate(content)
    assert [application.import_path for application in schema.applications] == ["serve_app:build"]
    assert list(unknown_keys(content, [ServeDeploySchema])) == []


def test_a_misspelt_key_is_found_wherever_it_is() -> None:
    content = read(CONFIGS[0])
    content["http_option"] = {}
    content["applications"][0]["deployments"][0]["max_queued_request"] = 1
    assert list(unknown_keys(content, [ServeDeploySchema])) == [
        "applications.deployments.max_queued_request",
        "http_option",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_application_can_be_built_and_has_the_deployments_that_the_file_sets(path: Path) -> None:
    (application,) = read(path)["applications"]
    built = build(application["args"])
    assert application["name"] == APP_NAME
    assert [one["name"] for one in application["deployments"]] == [built._bound_deployment.name]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_gateway_knows_where_ray_listens_so_that_it_asks_for_keys_there(path: Path) -> None:
    content = read(path)
    (application,) = content["applications"]
    settings = load_serve_settings(**application["args"])
    assert settings.host == content["http_options"]["host"]
    assert settings.is_open == settings.on_loopback


def test_production_sheds_load_and_drains() -> None:
    (application,) = read(ROOT / "configs" / "serve" / "production.yaml")["applications"]
    (gateway,) = application["deployments"]
    assert gateway["autoscaling_config"]["min_replicas"] > 1
    assert gateway["max_queued_requests"] > 0
    assert gateway["graceful_shutdown_timeout_s"] >= 30
    assert {"health_check_period_s", "health_check_timeout_s"} <= gateway.keys()
