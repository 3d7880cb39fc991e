"""The spec of GRPO, group relative policy optimisation for control."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from rlplatform.errors import SpecError
from rlplatform.specs.algo_options import (
    BatchSize,
    Fraction,
    LearningRate,
    NonNegativeFloat,
    Policy,
    PositiveFloat,
    PositiveInt,
)
from rlplatform.specs.algos import LoggedSpec
from rlplatform.specs.network_options import ActorKwargs
from rlplatform.specs.one_of import one_of
from rlplatform.specs.schedules import ScheduleSpec, UnitOrSchedule, read_shorthand

NonNegativeOrSchedule = Annotated[
    NonNegativeFloat | ScheduleSpec,
    one_of("a number, {schedule, initial, final}, or `lin_` and a number", number=NonNegativeFloat,
           mapping=ScheduleSpec),
    BeforeValidator(read_shorthand),
]  # fmt: skip


class GRPOSpec(LoggedSpec):
    """GRPO (Shao et al., 2024, arXiv:2402.03300) for control: no value network; `rlplatform/algos/grpo/README.md`."""

    amendable = LoggedSpec.amendable | {
        "gamma", "batch_size", "n_epochs", "clip_range", "clip_range_high", "ent_coef", "max_grad_norm", "target_kl",
    }  # fmt: skip

    name: Literal["grpo"] = "grpo"
    policy: Policy = "auto"
    policy_kwargs: ActorKwargs = ActorKwargs()
    learning_rate: LearningRate = ScheduleSpec(initial=1e-3)
    n_groups: PositiveInt = 1
    """Groups of each update."""
    group_size: Annotated[int, Field(ge=2)] = 32
    """Complete episodes of a group, which are compared with one another; an update takes n_groups x group_size."""
    n_steps: PositiveInt = 1
    """Fewest steps of an update, over all environments; groups are added until they are reached."""
    batch_size: BatchSize = 256
    n_epochs: PositiveInt = 4
    """Passes over the transitions of each update."""
    gamma: Fraction = 0.99
    """Discount of future rewards."""
    advantage: Literal["timestep", "outcome", "process", "linear", "reinforce", "actions"] = "timestep"
    """What a step is worth. `timestep`: its return-to-go above the mean of the other episodes at the same step;
    `outcome`: the episode's return above the group's mean; `process`: the centred rewards that follow; `linear`: the
    return-to-go above a linear regression on observation and time; `reinforce`: above the batch's mean; `actions`:
    above the mean of all actions, each tried in a copy of the environment."""
    scaling: Literal["batch", "group", "none"] = "batch"
    """Divide advantages by their standard deviation over the batch or the group. `batch` also centres them."""
    weighting: Literal["transition", "episode"] = "transition"
    """Count each transition the same, or as in the paper each episode, which favours the steps of short ones."""
    alive_peers_only: bool = False
    """`timestep`: compare only with episodes that still run, instead of counting those that ended as zero."""
    truncation: Literal["finite", "mask"] = "finite"
    """Take a time limit as the episode's end, or leave out of the loss the steps whose return it cut short."""
    same_start: bool = False
    """The episodes of a group start in the same state, by resetting with the same seed. Checked; costs idle steps."""
    dynamic_sampling: bool = False
    """Replace groups whose episodes all went alike, at most three times the episodes in all."""
    overlap: bool = True
    """Environments that are free begin the next update's episodes while the last ones of this update are played."""
    action_horizon: PositiveInt = 8
    """`actions`: steps for which the consequences of each action are followed."""
    clip_range: UnitOrSchedule = 0.2
    """How far the probability ratio may move from 1 before its gradient is cut: a number, or a schedule."""
    clip_range_high: PositiveFloat | None = None
    """How far it may rise above 1, if not as far as `clip_range`."""
    ent_coef: Annotated[NonNegativeOrSchedule, Field(description="Weight of the entropy bonus, or a schedule.")] = (
        ScheduleSpec(initial=0.01)
    )
    kl_coef: NonNegativeFloat = 0.0
    """Weight of the distance from a reference policy. 0: no reference."""
    reference_interval: PositiveInt = 10
    """Updates after which the reference becomes the current policy."""
    max_grad_norm: PositiveFloat = 0.5
    """Gradients are scaled down to this norm."""
    target_kl: PositiveFloat | None = None
    """End an update when the KL divergence from the old policy passes 1.5 times this. None: no limit."""
    log_std_min: float = -3.0
    """Lower bound of the logarithm of the standard deviation of continuous actions."""
    log_std_max: float = 0.5
    """Upper bound of it."""

    @model_validator(mode="after")
    def _options_fit(self) -> GRPOSpec:
        if self.log_std_min > self.log_std_max:
            raise ValueError(
                f"`log_std_min` must be at most `log_std_max`, got {self.log_std_min} > {self.log_std_max}. Swap them"
            )
        if self.dynamic_sampling and self.advantage == "actions":
            raise ValueError(
                "`dynamic_sampling` compares groups of episodes, `advantage: actions` has none. Set it to false"
            )
        if self.truncation == "mask" and self.gamma == 1:
            raise ValueError("`truncation: mask` needs `gamma` < 1: undiscounted, every step feels the limit. Use 0.99")
        return self

    def check_n_envs(self, n_envs: int) -> None:
        """Check that there are not more environments than episodes."""
        episodes = self.n_groups * self.group_size
        if n_envs > episodes:
            raise SpecError(
                f"`env.n_envs` must be at most n_groups x group_size = {episodes} episodes of an update, got {n_envs}. "
                "Lower it, or raise `algorithm.group_size`."
            )
