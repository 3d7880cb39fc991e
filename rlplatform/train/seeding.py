"""Random number generators: seeding all of them, deriving independent seeds, saving and restoring their state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class RngState:
    """The state of every global generator that training draws from."""

    python: Any
    numpy: Any
    torch_cpu: torch.Tensor
    torch_cuda: list[torch.Tensor]


def derive_seed(seed: int, purpose: str, number: int = 0) -> int:
    """Return a seed in [0, 2**31) that depends on all three arguments and on nothing else.

    Args:
        seed: The run's seed.
        purpose: What the seed is for; different purposes give unrelated seeds.
        number: Which one of that purpose.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFF_FFFF


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def capture_rng() -> RngState:
    """Return a copy of the state of every global generator."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return RngState(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def restore_rng(state: RngState) -> None:
    """Put every global generator back into a captured state."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.torch_cpu)
    if state.torch_cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state.torch_cuda)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Leave every global generator as it was found, whatever the body draws."""
    state = capture_rng()
    try:
        yield
    finally:
        restore_rng(state)
