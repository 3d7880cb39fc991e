"""JSON Schema of a run's spec, for editors and for other programs."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue
from pydantic.json_schema import models_json_schema

from rlplatform.algos.catalog import algorithm_names
from rlplatform.specs.algos import spec_class
from rlplatform.specs.base import Spec
from rlplatform.specs.run import RunSpec

_DEFINITIONS = "#/$defs/"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SHORTHANDS: dict[str, dict[str, Any]] = {
    "ScheduleSpec": {"type": "string", "pattern": "^lin_", "description": "`lin_0.001`: linear from 0.001 to 0."},
    "TrainFrequency": {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["step", "episode"]}]},
    "WrapperSpec": {"type": "string", "description": "A wrapper without arguments."},
}
"""What else may stand where one of these may: the specs' own validators read it, which pydantic cannot know."""


def run_spec_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema (draft 2020-12) of a run's spec, with one alternative for each algorithm of the catalog.

    It holds types, ranges, names and documentation; rules between fields are checked only when a spec is loaded.
    """
    algorithms = {name: spec_class(name) for name in algorithm_names()}
    models: list[type[Spec]] = [RunSpec, *algorithms.values()]
    references, shared = models_json_schema([(model, "validation") for model in models])
    definitions = shared["$defs"]
    for name, model in algorithms.items():
        options = definitions[_key(references[model, "validation"])]
        options["properties"]["name"] = {"const": name, "description": "The algorithm."}
        options["required"] = sorted({"name", *options.get("required", [])})
    alternatives = [references[model, "validation"] for model in algorithms.values()]
    run = definitions.pop(_key(references[RunSpec, "validation"]))
    run["properties"]["algorithm"] = {
        "description": RunSpec.model_fields["algorithm"].description,
        "oneOf": [*alternatives, {"enum": list(algorithms), "description": "An algorithm with its defaults."}],
    }
    del definitions["AlgoSpec"]
    schema: dict[str, JsonValue] = {"$schema": _DIALECT, **run, "title": "rlplatform run", "$defs": definitions}
    return {key: _with_shorthands(value) for key, value in schema.items()}


def _with_shorthands(schema: Any) -> Any:
    """Return the schema with each shorthand beside the form that it stands for."""
    if isinstance(schema, list):
        return [_with_shorthands(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    shorthand = _SHORTHANDS.get(str(schema.get("$ref")).removeprefix(_DEFINITIONS))
    if shorthand is not None:
        return {"anyOf": [schema, shorthand]}
    return {key: _with_shorthands(value) for key, value in schema.items()}


def _key(reference: dict[str, str]) -> str:
    return reference["$ref"].removeprefix(_DEFINITIONS)
