"""What is wrong with a spec, said so that it can be repaired: where, which field, rule, what was got, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from rlplatform.errors import RlPlatformError, SpecError, did_you_mean
from rlplatform.specs.algos import spec_class
from rlplatform.specs.base import Spec
from rlplatform.specs.yaml_text import Path

_RULES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be ≥ {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be ≤ {le:g}",
    "too_short": "must have {min_length} or more",
    "too_long": "must have at most {max_length}",
    "string_pattern_mismatch": "must match `{pattern}`",
    "literal_error": "must be {expected}",
}
_UNKNOWN_KEY = {"extra_forbidden", "unknown_option"}


def spec_error(
    error: ValidationError, model: type[Spec], data: Mapping[str, Any], origins: Mapping[Path, str], source: str
) -> SpecError:
    """Turn pydantic's errors into one that names file, line, field, rule, value and remedy of each.

    Args:
        error: What validating ``data`` as ``model`` raised.
        model: The spec class.
        data: What was validated.
        origins: Where each part of ``data`` was written.
        source: What to name where no part is to blame.
    """
    found: dict[Path, str] = {}
    for details in error.errors(include_url=False):
        path = _path_in(data, details)
        text = _explain(details, path, model, data)
        where = source if details["type"] == "missing" and not path[1:] else _where(path, text, origins, source)
        found.setdefault(path, f"{where}: {text}")
    return joined(list(found.values()))


def joined(problems: Sequence[str]) -> SpecError:
    """Return one error for one or several problems."""
    if len(problems) == 1:
        return SpecError(problems[0])
    return SpecError("\n  ".join([f"{len(problems)} problems:", *problems]))


def dotted(path: Path) -> str:
    """Return ``env.wrappers.0.name`` for ``("env", "wrappers", 0, "name")``."""
    return ".".join(str(part) for part in path)


def dig(data: Any, path: Path) -> Any:
    """Return the value at a path. The path must exist."""
    for part in path:
        data = data[part]
    return data


def shown(value: Any) -> str:
    """Return a value as it would be typed, cut to 80 characters."""
    text = {"True": "true", "False": "false", "None": "null"}.get(repr(value), repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def written_at(path: Path, origins: Mapping[Path, str], source: str) -> str:
    """Return where a part was written, or the nearest part that holds it; else `source`."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return source


def _where(path: Path, text: str, origins: Mapping[Path, str], source: str) -> str:
    """Return where the nearest part was written; a message may name a field further in than its path goes."""
    named = re.search(r"`([a-z_0-9.]+)`", text)
    if named and named[1].startswith(dotted(path)):
        path = (*path, *(part for part in named[1].removeprefix(dotted(path)).split(".") if part))
    return written_at(path, origins, source)


def _path_in(data: Any, error: ErrorDetails) -> Path:
    """Return the error's location without the names of union members, which pydantic puts between keys."""
    path: list[str | int] = []
    for position, part in enumerate(error["loc"]):
        missing = error["type"] == "missing" and position == len(error["loc"]) - 1
        try:
            data = None if missing else data[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return tuple(path)


def _explain(error: ErrorDetails, path: Path, model: type[Spec], data: Any) -> str:
    name, kind, context = dotted(path), error["type"], error.get("ctx", {})
    if kind in _UNKNOWN_KEY and path:
        return _explain_unknown_key(path, model, data)
    siblings = [found for found in _fields_at(path[:-1], model, data) if path and path[-1] in found]
    field = siblings[0][str(path[-1])] if siblings else None
    if kind == "missing":
        return f"`{name}` is required and not there. Add it{_describe(field)}"
    if kind == "value_error":
        return _from_validator(name, context["error"])
    rule = _interval(field) if kind.startswith(("greater", "less")) else None
    rule = rule or _RULES.get(kind, f"is not valid: {error['msg']}").format(**context)
    value = dig(data, path)
    remedy = _members(path, model, data) if kind.startswith("model") else _default_of(field)
    if kind == "literal_error" and isinstance(value, str):
        close = get_close_matches(value, re.findall(r"'([^']*)'", context["expected"]), n=1)
        remedy = f" Did you mean {close[0]!r}?" if close else remedy
    return f"`{name}` {rule}, got {shown(value)}.{remedy}"


def _from_validator(name: str, raised: Exception) -> str:
    """Return a validator's own message, with the field in front unless it names one."""
    text = str(raised).rstrip(".")
    text = text if text.endswith("?") else f"{text}."
    if isinstance(raised, RlPlatformError) or not name:
        return text
    return f"`{name}.{text[1:]}" if text.startswith("`") else f"`{name}` {text}"


def _explain_unknown_key(path: Path, model: type[Spec], data: Any) -> str:
    parent, key = path[:-1], str(path[-1])
    siblings = {name for found in _fields_at(parent, model, data) for name in found}
    elsewhere = sorted(dotted(known) for known in _all_fields(model, data) if known[-1] == key)
    what = model.__name__.removesuffix("Spec").lower()
    if parent == ("algorithm",):
        owner = f"an option of `{dig(data, parent).get('name')}`"
    else:
        owner = f"a field of `{dotted(parent)}`" if parent else f"a field of a {what}'s spec"
    hint = f"Did you mean `{elsewhere[0]}`?" if elsewhere else did_you_mean(key, siblings)
    return f"`{dotted(path)}` is not {owner}. {hint}"


def _describe(field: FieldInfo | None) -> str:
    """Return ``: `` and what a required field is, or what it must hold."""
    if field is not None and field.description:
        return ": " + " ".join(field.description.split()).rstrip(".") + "."
    models = _models_in(field.annotation) if field is not None else []
    needs = [name for model in models for name, inner in model.model_fields.items() if inner.is_required()]
    return f", with {' and '.join(f'`{name}`' for name in needs)}." if needs else "."


def _default_of(field: FieldInfo | None) -> str:
    if field is None or field.default in (PydanticUndefined, None, ()) or isinstance(field.default, BaseModel):
        return ""
    return f" The default is {shown(field.default)}."


def _members(path: Path, model: type[Spec], data: Any) -> str:
    names = [name for found in _fields_at(path, model, data) for name in found]
    return f" Its fields: {', '.join(names)}." if names else ""


def _interval(field: FieldInfo | None) -> str | None:
    """Return ``must be in (0, 1]`` for a field with both bounds."""
    metadata = field.metadata if field else []
    known = ((name, getattr(item, name, None)) for item in metadata for name in ("gt", "ge", "lt", "le"))
    bounds = {name: bound for name, bound in known if bound is not None}
    low, high = bounds.get("gt", bounds.get("ge")), bounds.get("lt", bounds.get("le"))
    if low is None or high is None:
        return None
    return f"must be in {'(' if 'gt' in bounds else '['}{low}, {high}{')' if 'lt' in bounds else ']'}"


# --- which fields exist -----------------------------------------------------------------------------------------------


def _fields_at(path: Path, model: type[Spec], data: Any) -> list[dict[str, FieldInfo]]:
    """Return the fields of each model that may stand at a path."""
    models, of_any_key = [model], False
    for position, part in enumerate(path):
        if path[: position + 1] == ("algorithm",):
            models = _algorithm_of(data)
        elif isinstance(part, str) and not of_any_key:
            annotations = [found.model_fields[part].annotation for found in models if part in found.model_fields]
            models = [inner for annotation in annotations for inner in _models_in(annotation)]
            of_any_key = any(get_origin(annotation) is dict for annotation in annotations)
            continue
        of_any_key = False
    return [found.model_fields for found in _tagged_as(models, path, data)]


def _tagged_as(models: Sequence[type[Spec]], path: Path, data: Any) -> Sequence[type[Spec]]:
    """Return those models whose `name` or `type` is the one that stands there, or all if that tells nothing."""
    try:
        here = dig(data, path)
        tags = {key: here[key] for key in ("name", "type") if key in here}
    except (KeyError, IndexError, TypeError):
        return models
    named = [model for model in models if any(_takes(model, key, tag) for key, tag in tags.items())]
    return named or models


def _takes(model: type[Spec], key: str, tag: Any) -> bool:
    return key in model.model_fields and tag in get_args(model.model_fields[key].annotation)


def _algorithm_of(data: Any) -> list[type[Spec]]:
    try:
        return [spec_class(data["algorithm"]["name"])]
    except (RlPlatformError, KeyError, TypeError, AttributeError):
        return []


def _models_in(annotation: Any) -> list[type[Spec]]:
    """Return the spec classes of an annotation such as ``tuple[WrapperSpec, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _all_fields(model: type[Spec], data: Any, prefix: Path = ()) -> Iterator[Path]:
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        yield path
        for inner in _algorithm_of(data) if path == ("algorithm",) else _models_in(field.annotation):
            yield from _all_fields(inner, data, path)
