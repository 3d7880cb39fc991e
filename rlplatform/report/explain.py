"""A spec as a list: each value with its origin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from rlplatform.specs.run import RunSpec


@dataclass(frozen=True)
class ExplainedValue:
    """One value of a spec."""

    field: str
    """Dotted path, such as `algorithm.gamma`."""
    value: JsonValue
    origin: str
    """The file and line, environment variable or option that set it, or `default`."""

    @property
    def text(self) -> str:
        """The value as it would be written in the file."""
        return json.dumps(self.value, ensure_ascii=False) if not isinstance(self.value, str) else self.value


def explain_spec(spec: RunSpec, origins: Mapping[str, str]) -> list[ExplainedValue]:
    """Return every value of a spec, in its order.

    Args:
        spec: The spec.
        origins: Origin of each value by dotted path, as `specs.load` returns it.
    """
    return [ExplainedValue(field, value, origins[field]) for field, value in _leaves(spec.model_dump(mode="json"), "")]


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, value
