"""JSON Schema of the spec of a run and of a search, for editors and for other programs."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue
from pydantic.json_schema import models_json_schema

from rlplatform.algos.catalog import algorithm_names
from rlplatform.specs.algos import spec_class
from rlplatform.specs.base import Spec
from rlplatform.specs.run import RunSpec
from rlplatform.specs.search import SAMPLERS, SearchSpec

_DEFINITIONS = "#/$defs/"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SHORTHANDS: dict[str, dict[str, Any]] = {
    "ScheduleSpec": {"type": "string", "pattern": "^lin_", "description": "`lin_0.001`: linear from 0.001 to 0."},
    "TrainFrequency": {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["step", "episode"]}]},
    "SamplerSpec": {"enum": list(SAMPLERS), "description": "A sampler with its defaults."},
    "NoScheduler": {"const": "none"},
    "WrapperSpec": {"type": "string", "description": "A wrapper without arguments."},
}
"""What else may stand where one of these may: the specs' own validators read it, which pydantic cannot know."""


def run_spec_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema (draft 2020-12) of a run's spec, with one alternative for each algorithm of the catalog.

    It holds types, ranges, names and documentation; rules between fields are checked only when a spec is loaded.
    """
    definitions = _definitions(RunSpec)
    return _schema("rlplatform run", definitions.pop("RunSpec"), definitions)


def search_spec_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema (draft 2020-12) of a search's file; its base run has the schema of a run's spec."""
    definitions = _definitions(SearchSpec)
    search = definitions.pop("SearchSpec")
    for alternative in definitions.values():
        if "const" in alternative.get("properties", {}).get("name", {}):
            alternative["required"] = sorted({"name", *alternative.get("required", [])})
    search["properties"] = {
        "run": {
            "description": SearchSpec.model_fields["run"].description,
            "oneOf": [
                {"type": "string", "description": "A run's file, from the search's folder."},
                {"$ref": f"{_DEFINITIONS}RunSpec"},
            ],
        },
        "set": {
            "type": "object",
            "description": "What differs from the run's file, by dotted path such as `env.n_envs`.",
        },
        **{name: field for name, field in search["properties"].items() if name != "run"},
    }
    return _schema("rlplatform search", search, definitions)


def _definitions(model: type[Spec]) -> dict[str, Any]:
    """Return the definitions of a spec that is or holds a run's, whose algorithm is one of the catalog's."""
    algorithms = {name: spec_class(name) for name in algorithm_names()}
    models: list[type[Spec]] = [model, *algorithms.values()]
    references, shared = models_json_schema([(found, "validation") for found in models])
    definitions: dict[str, Any] = shared["$defs"]
    for name, algorithm in algorithms.items():
        options = definitions[references[algorithm, "validation"]["$ref"].removeprefix(_DEFINITIONS)]
        options["properties"]["name"] = {"const": name, "description": "The algorithm."}
        options["required"] = sorted({"name", *options.get("required", [])})
    definitions["RunSpec"]["properties"]["algorithm"] = {
        "description": RunSpec.model_fields["algorithm"].description,
        "oneOf": [
            *(references[algorithm, "validation"] for algorithm in algorithms.values()),
            {"enum": list(algorithms), "description": "An algorithm with its defaults."},
        ],
    }
    del definitions["AlgoSpec"]
    return definitions


def _schema(title: str, root: dict[str, Any], definitions: dict[str, Any]) -> dict[str, JsonValue]:
    schema: dict[str, JsonValue] = {"$schema": _DIALECT, **root, "title": title, "$defs": definitions}
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
