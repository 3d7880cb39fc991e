"""Evaluation: whole episodes on environments apart from training, each with a seed of its own, on the true return."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from rlplatform import names
from rlplatform.envs.make import make_env
from rlplatform.errors import EnvError
from rlplatform.specs.run import EnvSpec
from rlplatform.train.policy_folder import Policy
from rlplatform.train.seeding import derive_seed, preserved_rng, seed_everything
from rlplatform.train.student_t import student_t_975

MAX_LANES = 20
"""Most environments that are stepped together."""


class Actor(Protocol):
    """What can be evaluated."""

    def act(
        self,
        obs: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        *,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return one action for each observation of a batch, and the state after it."""
        ...


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation measured. Returns are undiscounted sums of the environment's own reward."""

    n_episodes: int
    return_mean: float
    return_std: float
    return_ci_low: float
    """Lower end of the 95 % confidence interval of the mean over episodes (Student's t)."""
    return_ci_high: float
    length_mean: float
    success_rate: float | None
    """Share of episodes with at least the threshold's return; None where no threshold is known."""
    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    def metrics(self) -> dict[str, float]:
        """Return the numbers under their metric keys."""
        values = {
            names.EVAL_RETURN_MEAN: self.return_mean,
            names.EVAL_RETURN_STD: self.return_std,
            names.EVAL_RETURN_CI_LOW: self.return_ci_low,
            names.EVAL_RETURN_CI_HIGH: self.return_ci_high,
            names.EVAL_LENGTH_MEAN: self.length_mean,
            names.EVAL_N_EPISODES: float(self.n_episodes),
        }
        return values if self.success_rate is None else values | {names.EVAL_SUCCESS_RATE: self.success_rate}


@dataclass
class _Lane:
    """One environment that plays its share of the episodes, one after the other."""

    env: gym.Env[Any, Any]
    episodes: Iterator[int]
    obs: Any = None
    starts: bool = True
    episode: int = -1
    episode_return: float = 0.0
    length: int = 0

    def begin(self, seed: int) -> bool:
        """Reset to the next episode; False when none is left."""
        self.episode = next(self.episodes, -1)
        if self.episode < 0:
            return False
        self.obs, _ = self.env.reset(seed=derive_seed(seed, "episode", self.episode))
        self.starts, self.episode_return, self.length = True, 0.0, 0
        return True


def evaluate(
    policy: Actor,
    env: EnvSpec,
    *,
    n_episodes: int,
    seed: int,
    deterministic: bool = True,
    success_threshold: float | None = None,
) -> EvalResult:
    """Play `n_episodes` episodes and return what they measured; the global generators are left as they were.

    Episode ``i`` starts from ``reset(seed)`` with a seed derived from `seed` and ``i``, on environments made for this
    call: the result depends on the policy and the arguments only.

    Args:
        policy: What acts.
        env: The environment; its reward function and normalisation of rewards are not applied.
        n_episodes: Episodes to play, at least 1.
        seed: Base of the episodes' seeds.
        deterministic: Act greedily.
        success_threshold: Return from which an episode counts as a success.

    Raises:
        EnvError: A return is not finite.
    """
    n_lanes = min(n_episodes, MAX_LANES)
    returns, lengths = np.zeros(n_episodes), np.zeros(n_episodes, dtype=int)
    with preserved_rng(), ExitStack() as stack:
        seed_everything(derive_seed(seed, "sampling"))
        lanes = []
        for i in range(n_lanes):
            made = stack.enter_context(closing(make_env(env, training=False)))
            lanes.append(_Lane(made, iter(range(i, n_episodes, n_lanes))))
        if isinstance(policy, Policy):
            policy.renew_noise(n_lanes)
        _play(policy, lanes, seed, deterministic, returns, lengths)
    if not np.isfinite(returns).all():
        episode = int(np.flatnonzero(~np.isfinite(returns))[0])
        raise EnvError(
            f"Rewards of {env.id} must be finite numbers, but episode {episode} of an evaluation returned "
            f"{returns[episode]} after {lengths[episode]} steps. Mend the environment's reward."
        )
    return summarize(returns, lengths, success_threshold)


def summarize(returns: np.ndarray, lengths: np.ndarray, success_threshold: float | None) -> EvalResult:
    """Return the summary of episodes.

    Args:
        returns: float ``[n]``, return of each episode.
        lengths: int ``[n]``, steps of each episode.
        success_threshold: Return from which an episode counts as a success.
    """
    n, mean = len(returns), float(np.mean(returns))
    std = float(np.std(returns, ddof=1)) if n > 1 else 0.0
    half = student_t_975(n - 1) * std / math.sqrt(n) if n > 1 else 0.0
    success = None if success_threshold is None else float(np.mean(returns >= success_threshold))
    return EvalResult(
        n,
        mean,
        std,
        mean - half,
        mean + half,
        float(np.mean(lengths)),
        success,
        tuple(float(value) for value in returns),
        tuple(int(value) for value in lengths),
    )


def _play(
    policy: Actor, lanes: list[_Lane], seed: int, deterministic: bool, returns: np.ndarray, lengths: np.ndarray
) -> None:
    active = [lane for lane in lanes if lane.begin(seed)]
    masked = active[0].env.has_wrapper_attr("action_masks")
    state: Any = None
    while active:
        actions, state = policy.act(
            _stack([lane.obs for lane in active]),
            state,
            np.array([lane.starts for lane in active]),
            deterministic=deterministic,
            action_masks=_masks(active) if masked else None,
        )
        keep = [_step(lane, action, seed, returns, lengths) for lane, action in zip(active, actions, strict=True)]
        if not all(keep):
            active = [lane for lane, kept in zip(active, keep, strict=True) if kept]
            # Recurrent state is a tuple of arrays [layers, n, size].
            state = None if state is None else tuple(part[:, keep] for part in state)


def _step(lane: _Lane, action: Any, seed: int, returns: np.ndarray, lengths: np.ndarray) -> bool:
    """Step one lane; at the end of an episode note it and begin the next. False when the lane has no more to play."""
    lane.obs, reward, terminated, truncated, _ = lane.env.step(action)
    lane.starts = False
    lane.episode_return += float(reward)
    lane.length += 1
    if not (terminated or truncated):
        return True
    returns[lane.episode], lengths[lane.episode] = lane.episode_return, lane.length
    return lane.begin(seed)


def _masks(lanes: list[_Lane]) -> np.ndarray:
    return np.stack([lane.env.get_wrapper_attr("action_masks")() for lane in lanes])


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)
