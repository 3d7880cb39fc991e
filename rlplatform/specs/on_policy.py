"""Specs of the algorithms that learn from rollouts of their newest policy."""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlplatform.errors import SpecError
from rlplatform.specs.algo_options import (
    BatchSize,
    Fraction,
    GaeLambda,
    LearningRate,
    LstmPolicy,
    NonNegativeFloat,
    NormalizeAdvantage,
    Policy,
    PositiveFloat,
    PositiveInt,
    RolloutSteps,
)
from rlplatform.specs.algos import LoggedSpec, StateDependentExplorationSpec
from rlplatform.specs.network_options import ActorCriticKwargs, MaskableActorCriticKwargs, RecurrentActorCriticKwargs
from rlplatform.specs.schedules import PositiveOrSchedule, UnitOrSchedule


class _SquashedBySde(StateDependentExplorationSpec):
    policy_kwargs: ActorCriticKwargs = ActorCriticKwargs()

    @model_validator(mode="after")
    def _squashing_needs_sde(self) -> _SquashedBySde:
        if self.policy_kwargs.squash_output and not self.use_sde:
            raise ValueError("`policy_kwargs.squash_output` needs `use_sde: true`. Set it, or leave actions unsquashed")
        return self


class _OnPolicy(LoggedSpec):
    amendable = LoggedSpec.amendable | {"gamma", "gae_lambda", "normalize_advantage"}

    n_steps: RolloutSteps
    gamma: Fraction = 0.99
    """Discount of future rewards."""
    gae_lambda: GaeLambda = 0.95
    normalize_advantage: NormalizeAdvantage = True

    def check_n_envs(self, n_envs: int) -> None:
        if self.normalize_advantage and self.n_steps * n_envs == 1:
            raise SpecError(
                "`algorithm.n_steps` x `env.n_envs` must be > 1 with `normalize_advantage`, got 1 x 1: one advantage "
                "has no deviation. Raise either, or set `algorithm.normalize_advantage: false`."
            )


class _Minibatches(_OnPolicy):
    amendable = _OnPolicy.amendable | {"batch_size"}

    batch_size: BatchSize

    @model_validator(mode="after")
    def _one_advantage_has_no_deviation(self) -> _Minibatches:
        if self.normalize_advantage and self.batch_size == 1:
            raise ValueError("`batch_size` must be > 1 with `normalize_advantage`, got 1. Use 64")
        return self

    def check_n_envs(self, n_envs: int) -> None:
        super().check_n_envs(n_envs)
        rollout = self.n_steps * n_envs
        if rollout % self.batch_size:
            sizes = " or ".join(str(size) for size in nearest_divisors(rollout, self.batch_size))
            raise SpecError(
                f"`algorithm.batch_size` must divide the rollout of n_steps x n_envs = {self.n_steps} x {n_envs} = "
                f"{rollout} transitions, got {self.batch_size}. Use {sizes}, or change `n_steps` or `env.n_envs`."
            )


class _ActorCritic(_OnPolicy):
    amendable = _OnPolicy.amendable | {"ent_coef", "vf_coef", "max_grad_norm"}

    ent_coef: NonNegativeFloat = 0.0
    """Weight of the entropy bonus in the loss."""
    vf_coef: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_grad_norm: PositiveFloat = 0.5
    """Gradients are scaled down to this norm."""


class _ClippedObjective(_Minibatches, _ActorCritic):
    amendable = (
        _Minibatches.amendable | _ActorCritic.amendable | {"n_epochs", "clip_range", "clip_range_vf", "target_kl"}
    )

    learning_rate: LearningRate = 3e-4
    n_epochs: PositiveInt = 10
    """Passes over each rollout."""
    clip_range: UnitOrSchedule = 0.2
    """How far the probability ratio may move from 1 before its gradient is cut: a number, or a schedule."""
    clip_range_vf: PositiveOrSchedule | None = None
    """The same for the value function; depends on the scale of rewards. None: no clipping."""
    target_kl: PositiveFloat | None = None
    """End an update when the KL divergence from the old policy passes 1.5 times this. None: no limit."""


class PPOSpec(_SquashedBySde, _ClippedObjective):
    """Proximal Policy Optimization (Schulman et al., 2017, arXiv:1707.06347)."""

    name: Literal["ppo"] = "ppo"
    policy: Policy = "auto"
    n_steps: RolloutSteps = 2048
    batch_size: BatchSize = 64


class RecurrentPPOSpec(_SquashedBySde, _ClippedObjective):
    """PPO with an LSTM."""

    name: Literal["recurrent_ppo"] = "recurrent_ppo"
    policy: LstmPolicy = "auto"
    policy_kwargs: RecurrentActorCriticKwargs = RecurrentActorCriticKwargs()
    n_steps: RolloutSteps = 128
    batch_size: BatchSize = 128


class MaskablePPOSpec(_ClippedObjective):
    """PPO with invalid action masking (Huang and Ontañón, 2020, arXiv:2006.14171)."""

    name: Literal["maskable_ppo"] = "maskable_ppo"
    policy: Policy = "auto"
    policy_kwargs: MaskableActorCriticKwargs = MaskableActorCriticKwargs()
    n_steps: RolloutSteps = 2048
    batch_size: BatchSize = 64


class A2CSpec(_SquashedBySde, _ActorCritic):
    """Advantage Actor-Critic (Mnih et al., 2016, arXiv:1602.01783)."""

    name: Literal["a2c"] = "a2c"
    policy: Policy = "auto"
    learning_rate: LearningRate = 7e-4
    n_steps: RolloutSteps = 5
    gae_lambda: GaeLambda = 1.0
    normalize_advantage: NormalizeAdvantage = False
    rms_prop_eps: PositiveFloat = 1e-5
    """Added to RMSProp's denominator."""
    use_rms_prop: bool = True
    """Use RMSProp instead of Adam, unless `policy_kwargs.optimizer_class` says otherwise."""

    @model_validator(mode="after")
    def _optimizer_kwargs_are_used(self) -> A2CSpec:
        if self.use_rms_prop and self.policy_kwargs.optimizer_kwargs and self.policy_kwargs.optimizer_class is None:
            raise ValueError(
                "`policy_kwargs.optimizer_kwargs` is ignored with `use_rms_prop: true`. "
                "Set `policy_kwargs.optimizer_class: rmsprop` with it, or `use_rms_prop: false`"
            )
        return self


class TRPOSpec(_SquashedBySde, _Minibatches):
    """Trust Region Policy Optimization (Schulman et al., 2015, arXiv:1502.05477)."""

    amendable = _Minibatches.amendable | {
        "cg_max_steps", "cg_damping", "line_search_shrinking_factor", "line_search_max_iter", "n_critic_updates",
        "target_kl", "sub_sampling_factor",
    }  # fmt: skip

    name: Literal["trpo"] = "trpo"
    policy: Policy = "auto"
    learning_rate: LearningRate = 1e-3
    n_steps: RolloutSteps = 2048
    batch_size: BatchSize = 128
    cg_max_steps: PositiveInt = 15
    """Steps of the conjugate gradient method."""
    cg_damping: NonNegativeFloat = 0.1
    """Added to the diagonal of the Hessian."""
    line_search_shrinking_factor: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Factor of the step size at each iteration of the line search."""
    line_search_max_iter: PositiveInt = 10
    """Iterations of the line search before the update is given up."""
    n_critic_updates: PositiveInt = 10
    """Passes over each rollout to train the critic."""
    target_kl: PositiveFloat = 0.01
    """Largest KL divergence of one update."""
    sub_sampling_factor: PositiveInt = 1
    """Use every n-th transition for the actor's update."""


def nearest_divisors(total: int, size: int) -> list[int]:
    """Return the divisors of ``total`` next below and above ``size``; 1 only where there is no other."""
    small = [n for n in range(1, isqrt(total) + 1) if total % n == 0]
    divisors = sorted({*small, *(total // n for n in small)})
    below = [n for n in divisors if 1 < n < size][-1:]
    above = [n for n in divisors if n > size][:1]
    return [*below, *above] or divisors[:1]
