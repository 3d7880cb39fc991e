"""Drawing actions from a policy's parameters with numpy, as SB3 draws them with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlplatform.errors import PolicyInputError
from rlplatform.policy.bundle import BundleManifest, DistributionSpec
from rlplatform.policy.inputs import as_array, convert
from rlplatform.policy.spaces import BoxSpace, DiscreteSpace, MultiBinarySpace, MultiDiscreteSpace

Parameters = dict[str, np.ndarray]
Sampler = Callable[[Parameters, np.random.Generator], np.ndarray]

MASKED_LOGIT = np.float32(-1e8)
"""What MaskablePPO puts in the place of a forbidden action's logit: so low that its probability is 0 in float32."""


def sampler(manifest: BundleManifest) -> Sampler | None:
    """Return what draws actions of the action space from a batch of parameters; None where there is nothing to draw."""
    space = manifest.action_space
    dtype, shape = np.dtype(getattr(space, "dtype", "float32")), tuple(getattr(space, "shape", ()))

    def draw_choices(parameters: Parameters, rng: np.random.Generator) -> np.ndarray:
        # Gumbel-max: the argmax of logits plus Gumbel noise is distributed as the softmax of the logits, and minus the
        # logarithm of an exponential variate is Gumbel noise.
        logits = parameters["logits"]
        return choose(logits - np.log(rng.standard_exponential(logits.shape)), manifest)

    def draw_bits(parameters: Parameters, rng: np.random.Generator) -> np.ndarray:
        # u < sigmoid(l) exactly where logit(u) < l, which cannot overflow.
        uniform = rng.random(parameters["logits"].shape)
        with np.errstate(divide="ignore"):
            bits = np.log(uniform) - np.log1p(-uniform) < parameters["logits"]
        return bits.reshape(-1, *shape).astype(dtype)

    match manifest.distribution.type:
        case "categorical" | "multi_categorical":
            return draw_choices
        case "bernoulli":
            return draw_bits
        case "diag_gaussian" | "squashed_gaussian":
            return _gaussian(space, squashed=manifest.distribution.type == "squashed_gaussian")
        case "greedy" | "deterministic":
            return None


def choose(scores: np.ndarray, manifest: BundleManifest) -> np.ndarray:
    """Return the best-scored choice of each decision, `[n]` for a Discrete action, else `[n, *shape]`."""
    space, nvec = manifest.action_space, manifest.distribution.nvec
    if isinstance(space, DiscreteSpace):
        best: np.ndarray = scores.argmax(axis=1)
        return best.astype(space.dtype, copy=False)
    ends = np.cumsum(nvec)
    each = [scores[:, end - n : end].argmax(axis=1) for n, end in zip(nvec, ends, strict=True)]
    assert isinstance(space, (MultiDiscreteSpace, MultiBinarySpace))
    return np.stack(each, axis=1).reshape(-1, *space.shape).astype(space.dtype, copy=False)


def greedy(parameters: Parameters, manifest: BundleManifest) -> np.ndarray:
    """Return the most likely, or best, action of a policy that chooses."""
    return choose(next(iter(parameters.values())), manifest)


def read_masks(given: Any, manifest: BundleManifest, n: int, *, single: bool) -> np.ndarray:
    """Return masks as bool `[n, k]`.

    Raises:
        PolicyInputError: The policy does not choose, the shape is wrong, or a decision has no allowed choice.
    """
    k = manifest.mask_size
    if k is None:
        raise PolicyInputError("`action_masks` must be left out: this policy's actions are not choices.")
    masks = as_array("action_masks", given)
    if masks.dtype != np.bool_:
        if not np.isin(masks, (0, 1)).all():
            raise PolicyInputError("`action_masks` must be true or false for each action. Use bools.")
        masks = convert("action_masks", masks, np.dtype(np.int8)) != 0 if masks.dtype.kind != "f" else masks != 0
    if single and masks.shape == (k,):
        masks = masks[None]
    if masks.shape != (n, k):
        raise PolicyInputError(f"`action_masks` must have the shape {(k,) if single else (n, k)}, got {masks.shape}.")
    end = 0
    for size in manifest.distribution.nvec:
        if not masks[:, end : end + size].any(axis=1).all():
            raise PolicyInputError("`action_masks` must allow at least one action for each decision, got none.")
        end += size
    return np.ascontiguousarray(masks)


def apply_masks(parameters: Parameters, masks: np.ndarray, distribution: DistributionSpec) -> None:
    """Rule forbidden choices out of the parameters, and make logits log-probabilities again."""
    for name, scores in parameters.items():
        if name != "logits":
            parameters[name] = np.where(masks, scores, np.float32(-np.inf))
            continue
        masked = np.where(masks, scores, MASKED_LOGIT)
        ends = np.cumsum(distribution.nvec)
        for n, end in zip(distribution.nvec, ends, strict=True):
            part = masked[:, end - n : end]
            part -= part.max(axis=1, keepdims=True)
            part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
        parameters[name] = masked


def _gaussian(space: Any, *, squashed: bool) -> Sampler:
    assert isinstance(space, BoxSpace)
    low, high = space.bounds()

    span = high - low

    def draw(parameters: Parameters, rng: np.random.Generator) -> np.ndarray:
        mean = parameters["mean"]
        action = rng.standard_normal(mean.shape, dtype=np.float32)
        action *= np.exp(parameters["log_std"])
        action += mean
        action = action.reshape(-1, *space.shape)
        bounded: np.ndarray
        bounded = low + 0.5 * (np.tanh(action) + 1.0) * span if squashed else np.minimum(np.maximum(action, low), high)
        return bounded

    return draw
