"""Options that take values of several shapes: the shape decides which rule applies, so that an error names one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator

from rlplatform.errors import did_you_mean


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


def tagged(key: str, kind: str, known: Sequence[str]) -> WrapValidator:
    """Return a validator of a union whose members are told apart by one key; the tag alone stands for its defaults.

    Args:
        key: The key, such as ``name``.
        kind: What the tag stands for, for the message.
        known: The tags that there are.
    """

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, str):
            value = {key: value}
        if isinstance(value, Mapping):
            tag = value.get(key)
            if tag is None:
                raise ValueError(f"must have a `{key}`, got {dict(value)!r}. {did_you_mean('', known)}")
            if tag not in known:
                raise ValueError(f"`{key}` must be a known {kind}, got {tag!r}. {did_you_mean(str(tag), known)}")
        elif not isinstance(value, BaseModel):
            raise ValueError(f"must be a mapping with a `{key}`, got {value!r}. {did_you_mean('', known)}")
        return handler(value)

    return WrapValidator(validate)
