"""The base of every spec: frozen, strict, serialisable, with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """What is asked for. Immutable; unknown keys are errors; the text under each field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def digest(self, exclude: Collection[str] = ()) -> str:
        """Return the sha256 of the canonical JSON of this spec, as 64 hexadecimal digits.

        Args:
            exclude: Names of top-level fields to leave out.
        """
        text = json.dumps(self.model_dump(mode="json", exclude=set(exclude)), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
