"""Checks what callers give to a policy, so that a wrong input is an error with words and never a wrong action."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlplatform.errors import PolicyInputError
from rlplatform.policy.spaces import BoxSpace, DiscreteSpace, FlatSpace, MultiBinarySpace, MultiDiscreteSpace

_SURELY_FITS = {np.dtype(kind): float(np.finfo(kind).max) ** 2 for kind in (np.float16, np.float32)}
"""Numbers with a smaller sum of squares fit into that dtype, each of them."""


class InputReader:
    """Turns what is given for one part of the observation into the batch that the graph takes."""

    def __init__(self, name: str, space: FlatSpace) -> None:
        self.name = name
        self._shape = tuple(space.shape)
        self._n_axes = len(self._shape)
        self._dtype = np.dtype(space.dtype)
        self._is_float = self._dtype.kind == "f"
        self._limit: np.ndarray | None = None
        match space:
            case DiscreteSpace():
                self._limit = np.asarray(space.n)
            case MultiDiscreteSpace():
                self._limit = np.asarray(space.nvec)
            case MultiBinarySpace():
                self._limit = np.asarray(2)
            case BoxSpace():
                pass

    def read(self, given: Any) -> tuple[np.ndarray, bool]:
        """Return the batch `[n, *shape]` of the space's dtype, and whether a single observation was given.

        Raises:
            PolicyInputError: The type, the shape or a value does not fit.
        """
        array = given if type(given) is np.ndarray else as_array(self.name, given)
        if array.dtype is not self._dtype:
            array = convert(self.name, array, self._dtype)
        shape = array.shape
        if shape == self._shape:
            single = True
            array = array[None]
        elif shape[1:] == self._shape and len(shape) == self._n_axes + 1 and shape[0] > 0:
            single = False
        else:
            raise PolicyInputError(
                f"`{self.name}` must have the shape {self._shape}, or {('n', *self._shape)} for a batch, got {shape}."
            )
        if self._is_float:
            # A sum of squares is NaN exactly where an element is, and one call where np.isnan(...).any() is two.
            flat = array.ravel()
            total = np.dot(flat, flat)
            if total != total:
                raise PolicyInputError(f"`{self.name}` must hold numbers, got NaN. Check the environment.")
        elif self._limit is not None and ((array < 0) | (array >= self._limit)).any():
            raise PolicyInputError(
                f"`{self.name}` must count from 0 to below {self._limit.tolist()}, got {array.min()} to {array.max()}."
            )
        return array, single


def as_array(name: str, given: Any) -> np.ndarray:
    """Return `given` as an array of numbers or bools.

    Raises:
        PolicyInputError: It is ragged, or holds something else.
    """
    try:
        array = np.asarray(given)
    except (ValueError, OverflowError, TypeError) as error:
        raise PolicyInputError(f"`{name}` must be an array of numbers, got {type(given).__name__}: {error}.") from error
    if array.dtype.kind not in "biuf":
        raise PolicyInputError(f"`{name}` must hold numbers, got {array.dtype}.")
    return array


def convert(name: str, array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return `array` in `dtype`: rounding to a shorter float is allowed, changing an integer's value is not.

    Raises:
        PolicyInputError: Values would change.
    """
    if array.dtype == dtype:
        return array
    if dtype.kind != "f":
        if array.dtype.kind == "f":
            raise PolicyInputError(f"`{name}` must hold integers ({dtype}), got {array.dtype}.")
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise PolicyInputError(
                f"`{name}` must lie between {limits.min} and {limits.max}, got {array.min()} to {array.max()}."
            )
    if dtype.kind != "f" or (array.dtype.kind == "f" and np.vdot(array, array) < _SURELY_FITS.get(dtype, 0.0)):
        return array.astype(dtype)
    with np.errstate(over="ignore"):  # On an event loop, a tenth of what a request costs.
        return array.astype(dtype)


def read_batch(name: str, given: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return `given` as an array of exactly `shape`, without NaN.

    Raises:
        PolicyInputError: The type, the shape or a value does not fit.
    """
    array = convert(name, as_array(name, given), np.dtype(dtype))
    if array.shape != shape:
        raise PolicyInputError(f"`{name}` must have the shape {shape}, got {array.shape}.")
    if np.isnan(array).any():
        raise PolicyInputError(f"`{name}` must hold numbers, got NaN.")
    return array
