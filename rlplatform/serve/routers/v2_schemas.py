"""What OpenAPI says of the Open Inference Protocol's bodies."""

from __future__ import annotations

from typing import Any

_STRINGS = {"type": "array", "items": {"type": "string"}}
_SHAPE = {"type": "array", "items": {"type": "integer"}}
_PARAMETERS = {"type": "object", "additionalProperties": True}
_DESCRIBED = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {"name": {"type": "string"}, "datatype": {"type": "string"}, "shape": _SHAPE},
    },
}


def _tensor(*required: str) -> dict[str, Any]:
    fields = {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "examples": ["FP32"]},
        "data": {"type": "array"},
        "parameters": _PARAMETERS,
    }
    return {"type": "object", "required": list(required), "properties": fields}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _answers(description: str, schema: dict[str, Any], *errors: int, binary: bool = False) -> dict[int | str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    error = {"application/json": {"schema": _object({"error": {"type": "string"}})}}
    return {
        200: {"description": description, "content": content},
        **{status: {"description": _ERRORS[status], "content": error} for status in errors},
    }


def _body(schema: dict[str, Any], *, required: bool, binary: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": required, "content": content}}


_ERRORS = {
    400: "A name cannot be read, or a tensor does not fit the policy.",
    404: "There is no such model.",
    413: "The body or the batch is too large.",
    422: "The body does not fit the protocol.",
    503: "The model does not fit into the memory now.",
}
_BOOL = {"type": "boolean"}
_TEXT = {"type": "string"}

SERVER = _answers("The server.", _object({"name": _TEXT, "version": _TEXT, "extensions": _STRINGS}))
LIVE = _answers("It is alive.", _object({"live": _BOOL}))
READY = _answers("It is ready.", _object({"ready": _BOOL}))
INDEX_REQUEST = _body(_object({}, {"ready": _BOOL}), required=False)
INDEX = _answers(
    "Every version.",
    {"type": "array", "items": _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT})},
    413,
    422,
)
MODEL = _answers(
    "The model.",
    _object({"name": _TEXT, "versions": _STRINGS, "platform": _TEXT, "inputs": _DESCRIBED, "outputs": _DESCRIBED}),
    400,
    404,
    503,
)
MODEL_READY = _answers("It is ready.", _object({"name": _TEXT, "ready": _BOOL}), 400, 404, 503)
INFER_REQUEST = _body(
    _object(
        {"inputs": {"type": "array", "items": _tensor("name", "shape", "datatype")}},
        {
            "id": _TEXT,
            "outputs": {"type": "array", "items": _object({"name": _TEXT}, {"parameters": _PARAMETERS})},
            "parameters": _object(
                {}, {"deterministic": _BOOL, "seed": {"type": "integer", "minimum": 0}, "binary_data_output": _BOOL}
            ),
        },
    ),
    required=True,
    binary=True,
)
INFER = _answers(
    "The policy's outputs.",
    _object(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "outputs": {"type": "array", "items": _tensor("name", "shape", "datatype")},
        },
        {"id": _TEXT},
    ),
    400,
    404,
    413,
    422,
    503,
    binary=True,
)


def path_parameters(path: str) -> dict[str, Any]:
    """Return the parameters in a path, which the routes read themselves."""
    named = [name for name in ("model", "version") if f"{{{name}}}" in path]
    return {
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named]
    }
