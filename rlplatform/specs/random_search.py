"""Specs of the algorithms that search over weights without gradients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlplatform.specs.algo_options import LearningRate, PositiveInt
from rlplatform.specs.algos import LoggedSpec
from rlplatform.specs.network_options import SearchPolicyKwargs
from rlplatform.specs.schedules import PositiveOrSchedule


class ARSSpec(LoggedSpec):
    """Augmented Random Search (Mania et al., 2018, arXiv:1803.07055)."""

    amendable = LoggedSpec.amendable | {"delta_std", "alive_bonus_offset", "n_eval_episodes", "n_top"}

    name: Literal["ars"] = "ars"
    policy: Annotated[
        Literal["auto", "MlpPolicy", "LinearPolicy"], Field(description="Kind of policy. `auto`: `MlpPolicy`.")
    ] = "auto"
    policy_kwargs: SearchPolicyKwargs = SearchPolicyKwargs()
    learning_rate: LearningRate = 0.02
    n_delta: PositiveInt = 8
    """Directions tried, both ways, for each update."""
    n_top: PositiveInt | None = None
    """Best directions that the update uses. None: all."""
    delta_std: PositiveOrSchedule = 0.05
    """Standard deviation of the tried changes of weights: a number, or a schedule."""
    zero_policy: bool = True
    """Start from weights of zero."""
    alive_bonus_offset: float = 0.0
    """Added to each step's reward, to cancel a bonus for staying alive."""
    n_eval_episodes: PositiveInt = 1
    """Episodes that score each tried change."""

    @model_validator(mode="after")
    def _top_is_among_tried(self) -> ARSSpec:
        if self.n_top is not None and self.n_top > self.n_delta:
            raise ValueError(f"`n_top` must be at most `n_delta` = {self.n_delta}, got {self.n_top}. Leave out for all")
        return self

    @model_validator(mode="after")
    def _linear_has_no_layers(self) -> ARSSpec:
        if self.policy == "LinearPolicy" and self.policy_kwargs.net_arch:
            raise ValueError("`policy_kwargs.net_arch` does not apply to `LinearPolicy`. Use `policy: MlpPolicy`")
        return self
