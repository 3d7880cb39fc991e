"""Observation and action spaces as plain data: what `policy.json` holds and the runtime checks inputs against.

Gymnasium is imported only to convert its own spaces, so that a policy is served without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlplatform.errors import BundleError

if TYPE_CHECKING:
    import gymnasium as gym

MAX_ELEMENTS = 2**26
"""Largest number of elements of one observation, mask or action: a bound on what a manifest can make us allocate."""

Size = Annotated[int, Field(ge=1, le=MAX_ELEMENTS)]
Shape = Annotated[tuple[Size, ...], Field(max_length=8)]
IntType = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]
BoxType = Literal["float16", "float32", "float64", IntType]
Number = float | Literal["inf", "-inf"]
"""A bound. JSON has no infinity, so it is spelled."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _is_bounded(self) -> _Part:
        shape: tuple[int, ...] = getattr(self, "shape", ())
        if math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"a space must have at most {MAX_ELEMENTS} elements, got shape {shape}")
        return self


class BoxSpace(_Part):
    """Numbers between bounds; an image is a Box of uint8."""

    type: Literal["box"] = "box"
    shape: Shape
    dtype: BoxType
    low: Number | tuple[Number, ...]
    """One bound for all elements, or one for each in row-major order."""
    high: Number | tuple[Number, ...]

    @model_validator(mode="after")
    def _bounds_fit(self) -> BoxSpace:
        for bound in (self.low, self.high):
            if isinstance(bound, tuple) and len(bound) != math.prod(self.shape):
                raise ValueError(f"bounds must be one or {math.prod(self.shape)} numbers, got {len(bound)}")
        return self

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper bounds, each of the space's shape and dtype."""
        return self._filled(self.low), self._filled(self.high)

    def _filled(self, bound: Number | tuple[Number, ...]) -> np.ndarray:
        given = np.asarray(bound, dtype=np.float64)
        return np.broadcast_to(given.reshape(self.shape if given.ndim else ()), self.shape).astype(self.dtype)


class DiscreteSpace(_Part):
    """One of `n` choices. Policies number them from 0, whatever `start` is, as Stable-Baselines3 does."""

    type: Literal["discrete"] = "discrete"
    n: Size
    start: int = 0
    dtype: IntType = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element: a scalar."""
        return ()


class MultiDiscreteSpace(_Part):
    """Several choices at once, each numbered from 0."""

    type: Literal["multi_discrete"] = "multi_discrete"
    nvec: Annotated[tuple[Size, ...], Field(min_length=1, max_length=MAX_ELEMENTS)]
    dtype: IntType = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element."""
        return (len(self.nvec),)


class MultiBinarySpace(_Part):
    """Several bits at once."""

    type: Literal["multi_binary"] = "multi_binary"
    shape: Shape
    dtype: IntType = "int8"


FlatSpace = Annotated[BoxSpace | DiscreteSpace | MultiDiscreteSpace | MultiBinarySpace, Field(discriminator="type")]


class DictSpace(_Part):
    """Named parts, none of them a Dict."""

    type: Literal["dict"] = "dict"
    spaces: Annotated[dict[str, FlatSpace], Field(min_length=1, max_length=1024)]


Space = Annotated[
    BoxSpace | DiscreteSpace | MultiDiscreteSpace | MultiBinarySpace | DictSpace, Field(discriminator="type")
]


def parts(space: Space) -> dict[str, FlatSpace]:
    """Return a Dict's parts by key; another space is the one part under the empty key."""
    return dict(space.spaces) if isinstance(space, DictSpace) else {"": space}


def space_from_gym(space: gym.Space[Any]) -> Space:
    """Describe a Gymnasium space.

    Raises:
        BundleError: If policies cannot be published for such a space.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return BoxSpace(shape=space.shape, dtype=_dtype(space), low=_compact(space.low), high=_compact(space.high))
    if isinstance(space, spaces.Discrete):
        return DiscreteSpace(n=int(space.n), start=int(space.start), dtype=_dtype(space))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return MultiDiscreteSpace(nvec=tuple(int(n) for n in space.nvec), dtype=_dtype(space))
    if isinstance(space, spaces.MultiBinary):
        return MultiBinarySpace(shape=space.shape, dtype=_dtype(space))
    if isinstance(space, spaces.Dict) and not any(isinstance(part, spaces.Dict) for part in space.values()):
        return DictSpace(spaces={key: space_from_gym(part) for key, part in space.items()})
    raise BundleError(
        f"A policy cannot be published for the space {space}. Box, Discrete, MultiDiscrete (one row, from 0), "
        "MultiBinary and a Dict of those can. Wrap the environment so that it has one of them."
    )


def _dtype(space: gym.Space[Any]) -> Any:
    dtype = np.dtype(space.dtype).name
    if dtype not in ("float16", "float32", "float64", *get_args(IntType)):
        raise BundleError(f"A policy cannot be published for the dtype {dtype} of {space}. Use float32 or an integer.")
    return dtype


def _compact(bound: np.ndarray) -> Any:
    values = [_number(value) for value in bound.reshape(-1).tolist()]
    return values[0] if len(set(values)) == 1 else tuple(values)


def _number(value: float) -> Number:
    return value if math.isfinite(value) else "inf" if value > 0 else "-inf"
