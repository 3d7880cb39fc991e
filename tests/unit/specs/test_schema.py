"""The JSON Schema that editors use agrees with what the loader takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rlplatform.algos.catalog import algorithm_names
from rlplatform.specs.algos import parse_algo
from rlplatform.specs.load import load_run_spec
from rlplatform.specs.run import RunSpec
from rlplatform.specs.schema import run_spec_schema
from rlplatform.specs.yaml_text import read_yaml

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "train").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = run_spec_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_fits_the_schema_as_written_and_with_its_defaults(
    path: Path, validator: Draft202012Validator
) -> None:
    validator.validate(read_yaml(path.read_text(encoding="utf-8"), path.name).data)
    validator.validate(load_run_spec(path).spec.model_dump(mode="json"))


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_is_an_alternative_with_its_own_options(name: str, validator: Draft202012Validator) -> None:
    def spec(**options: Any) -> dict[str, Any]:
        algorithm = {"name": name, **options}
        return {"algorithm": algorithm, "env": {"id": "E-v0"}, "budget": {"total_timesteps": 1}}

    defaults = {key: value for key, value in parse_algo(name).model_dump(mode="json").items() if key != "name"}
    assert validator.is_valid(spec())
    assert validator.is_valid(spec(**defaults))
    assert not validator.is_valid(spec(no_such_option=1))
    assert not validator.is_valid(spec(learning_rate=-1))


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "ppo"},
        {"algorithm": {"name": "ppo", "learning_rate": "lin_0.001"}},
        {"algorithm": {"name": "sac", "train_freq": [1, "episode"]}},
        {"env": {"id": "E-v0", "wrappers": ["flatten", {"name": "flatten"}]}},
    ],
)
def test_shorthands_fit_the_schema(change: dict[str, Any], validator: Draft202012Validator) -> None:
    validator.validate({"algorithm": "ppo", "env": {"id": "E-v0"}, "budget": {"total_timesteps": 1}, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "no_such_algorithm"},
        {"algorithm": {"n_steps": 1}},
        {"env": {"id": "E-v0", "n_envs": 0}},
        {"env": {"id": "E-v0", "backend": "threads"}},
        {"budget": {}},
        {"seeds": 1},
    ],
)
def test_what_the_loader_refuses_does_not_fit_the_schema(
    change: dict[str, Any], validator: Draft202012Validator
) -> None:
    valid = {"algorithm": "ppo", "env": {"id": "E-v0"}, "budget": {"total_timesteps": 1}}
    assert not validator.is_valid({**valid, **change})


def test_fields_carry_their_documentation() -> None:
    schema: Any = run_spec_schema()
    assert set(schema["properties"]) == set(RunSpec.model_fields)
    for model in ("EnvSpec", "BudgetSpec", "EvaluationSpec", "PPOSpec", "SACSpec"):
        documented = schema["$defs"][model]["properties"]
        assert {name for name, field in documented.items() if not {"description", "$ref"} & field.keys()} <= {"name"}, (
            model
        )
