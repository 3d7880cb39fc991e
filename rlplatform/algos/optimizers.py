"""The optimizers of a model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from stable_baselines3.common.base_class import BaseAlgorithm


def optimizers(model: BaseAlgorithm) -> Iterator[torch.optim.Optimizer]:
    """Yield a model's optimizers: those of its networks, and the algorithm's own, as SAC has one for the entropy."""
    for holder in (model, *model.policy.modules()):
        yield from (value for value in vars(holder).values() if isinstance(value, torch.optim.Optimizer))


def fuse(model: BaseAlgorithm) -> None:
    """Let a model's Adam do a step in one kernel, unless the spec says how.

    torch's default on a CPU is a dozen operations for each tensor, which for networks of this size take longer than the
    backward pass. The arithmetic is the same up to the last bits of a float32. Off-policy algorithms are left as
    Stable-Baselines3 makes them: DQN and SAC ended lower with it over six seeds of short trainings, perhaps by chance.
    """
    for optimizer in optimizers(model):
        if isinstance(optimizer, torch.optim.Adam):
            for group in optimizer.param_groups:
                if group["fused"] is None and group["foreach"] is None:
                    group["fused"] = True
