"""Random actions that honour an environment's action masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


def sample_action(space: spaces.Space[Any], mask: NDArray[np.bool_] | None = None) -> Any:
    """Return a random action, drawn from the space's own generator.

    Args:
        space: The action space.
        mask: Which choices are allowed: bool, all choices of all dimensions one after another, as sb3-contrib wants
            ``action_masks()`` to give them. None: all.
    """
    if mask is None:
        return space.sample()
    allowed = np.asarray(mask).astype(np.int8)
    if isinstance(space, spaces.Discrete):
        return space.sample(mask=allowed)
    if isinstance(space, spaces.MultiDiscrete):
        return space.sample(mask=tuple(np.split(allowed, np.cumsum(space.nvec)[:-1])))
    assert isinstance(space, spaces.MultiBinary), f"{space} has no masks"
    off, on = allowed.reshape(-1, 2).T
    return space.sample(mask=np.where(off & on, 2, on).astype(np.int8))
