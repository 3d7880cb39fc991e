"""Options that take values of several shapes: the shape decides which rule applies, so that an error names one rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator


def one_of(
    expected: str, *, number: Any = None, text: Any = None, sequence: Any = None, mapping: Any = None
) -> WrapValidator:
    """Return a validator that picks the type by the value's shape; pydantic's own unions report every member's error.

    Args:
        expected: What the option takes, in words, for a value of no accepted shape.
        number: Type of numbers and of text that reads as one: YAML 1.1 reads ``1e-3`` as text.
        text: Type of other text.
        sequence: Type of lists.
        mapping: Type of mappings.
    """
    types = {"number": number, "text": text, "sequence": sequence, "mapping": mapping}
    adapters: dict[str | None, TypeAdapter[Any]] = {
        shape: TypeAdapter(kind) for shape, kind in types.items() if kind is not None
    }

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        adapter = adapters.get(_shape(value))
        if adapter is None:
            raise ValueError(f"must be {expected}, got {value!r}")
        return adapter.validate_python(value)

    return WrapValidator(validate)


def _shape(value: Any) -> str | None:
    if isinstance(value, (Mapping, BaseModel)):
        return "mapping"
    if isinstance(value, (list, tuple)):
        return "sequence"
    if isinstance(value, str):
        return "number" if _reads_as_number(value) else "text"
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
