"""Specs of the algorithms that learn from a replay buffer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlplatform.errors import SpecError
from rlplatform.specs.algo_options import (
    ActionNoise,
    BatchSize,
    EntropyCoefficient,
    ExplorationFraction,
    FinalExplorationRate,
    Fraction,
    LearningRate,
    NonNegativeFloat,
    Policy,
    PolicyDelay,
    PositiveFloat,
    PositiveInt,
    ReplayBufferKwargs,
    TargetEntropy,
    TargetUpdateInterval,
    Tau,
    TrainFreq,
    TrainFrequency,
)
from rlplatform.specs.algos import AlgoSpec, LoggedSpec, StateDependentExplorationSpec
from rlplatform.specs.network_options import (
    BatchNormActorKwargs,
    DeterministicActorKwargs,
    QNetworkKwargs,
    QuantileCriticKwargs,
    QuantileNetworkKwargs,
    SingleCriticKwargs,
    SquashedActorKwargs,
)


class _OffPolicy(AlgoSpec):
    amendable = AlgoSpec.amendable | {"learning_starts", "batch_size", "gamma", "train_freq", "gradient_steps"}

    buffer_size: PositiveInt = 1_000_000
    """Transitions kept, over all environments."""
    learning_starts: Annotated[int, Field(ge=0)] = 100
    """Environment steps of random actions before the first update."""
    batch_size: BatchSize
    gamma: Fraction = 0.99
    """Discount of future rewards."""
    train_freq: TrainFreq
    gradient_steps: Annotated[int, Field(ge=-1)] = 1
    """Updates in each phase of training. -1: as many as steps were collected."""
    replay_buffer_kwargs: ReplayBufferKwargs = ReplayBufferKwargs()
    """Options of the replay buffer."""
    optimize_memory_usage: bool = False
    """Store each observation once instead of twice, at the price of exact time limits."""
    n_steps: PositiveInt = 1
    """Steps of the n-step return; 1 is the usual one-step target."""

    @model_validator(mode="after")
    def _memory_or_time_limits(self) -> _OffPolicy:
        if self.optimize_memory_usage and self.replay_buffer_kwargs.handle_timeout_termination:
            raise ValueError(
                "`optimize_memory_usage` cannot keep what time limits need. "
                "Set `replay_buffer_kwargs: {handle_timeout_termination: false}` with it, or leave it off"
            )
        if self.optimize_memory_usage and self.n_steps > 1:
            raise ValueError(f"`optimize_memory_usage` needs `n_steps` = 1, got {self.n_steps}. Leave either off")
        return self

    def check_n_envs(self, n_envs: int) -> None:
        if isinstance(self.train_freq, TrainFrequency) and self.train_freq.unit == "episode" and n_envs > 1:
            raise SpecError(
                f"`algorithm.train_freq` in episodes needs `env.n_envs` = 1, got {n_envs}: several environments do not "
                "end their episodes together. Give it in steps, for example `train_freq: 64`."
            )
        if self.buffer_size < n_envs * self.n_steps:
            raise SpecError(
                f"`algorithm.buffer_size` must hold n_steps x n_envs = {self.n_steps} x {n_envs} transitions, "
                f"got {self.buffer_size}. Use {max(10_000, 100 * n_envs * self.n_steps)} or more."
            )


class _QLearning(_OffPolicy, LoggedSpec):
    amendable = _OffPolicy.amendable | {
        "tau", "target_update_interval", "max_grad_norm", "exploration_fraction", "exploration_initial_eps",
        "exploration_final_eps",
    }  # fmt: skip

    batch_size: BatchSize = 32
    train_freq: TrainFreq = 4
    tau: Tau = 1.0
    target_update_interval: TargetUpdateInterval = 10_000
    exploration_fraction: ExplorationFraction
    exploration_initial_eps: Fraction = 1.0
    """Probability of a random action at the first step."""
    exploration_final_eps: FinalExplorationRate


class DQNSpec(_QLearning):
    """Deep Q-Network (Mnih et al., 2013, arXiv:1312.5602)."""

    name: Literal["dqn"] = "dqn"
    policy: Policy = "auto"
    policy_kwargs: QNetworkKwargs = QNetworkKwargs()
    learning_rate: LearningRate = 1e-4
    exploration_fraction: ExplorationFraction = 0.1
    exploration_final_eps: FinalExplorationRate = 0.05
    max_grad_norm: PositiveFloat = 10.0
    """Gradients are scaled down to this norm."""


class QRDQNSpec(_QLearning):
    """Quantile Regression DQN (Dabney et al., 2017, arXiv:1710.10044)."""

    name: Literal["qrdqn"] = "qrdqn"
    policy: Policy = "auto"
    policy_kwargs: QuantileNetworkKwargs = QuantileNetworkKwargs()
    learning_rate: LearningRate = 5e-5
    exploration_fraction: ExplorationFraction = 0.005
    exploration_final_eps: FinalExplorationRate = 0.01
    max_grad_norm: PositiveFloat | None = None
    """Gradients are scaled down to this norm. None: never."""


class _ContinuousOffPolicy(_OffPolicy):
    batch_size: BatchSize = 256
    train_freq: TrainFreq = 1
    action_noise: ActionNoise | None = None
    """Noise added to actions while training: {type: normal, sigma: 0.1}. None: none."""


class _TargetNetwork(_ContinuousOffPolicy):
    amendable = _ContinuousOffPolicy.amendable | {"tau"}

    tau: Tau = 0.005


class _MaximumEntropy(_ContinuousOffPolicy, StateDependentExplorationSpec, LoggedSpec):
    amendable = _ContinuousOffPolicy.amendable | {"ent_coef", "target_entropy", "use_sde_at_warmup"}

    ent_coef: EntropyCoefficient = "auto"
    target_entropy: TargetEntropy = "auto"
    use_sde_at_warmup: bool = False
    """Explore by gSDE instead of uniformly before `learning_starts`."""

    def check_amendment(self, new: AlgoSpec) -> None:
        super().check_amendment(new)
        after = getattr(new, "ent_coef", self.ent_coef)
        if after != self.ent_coef and (isinstance(after, str) or isinstance(self.ent_coef, str)):
            raise SpecError(
                f"`algorithm.ent_coef` can change on a live model only from number to number, got {after!r} instead of "
                f"{self.ent_coef!r}: what is learned has an optimizer and a state. Start a new run."
            )


class SACSpec(_MaximumEntropy, _TargetNetwork):
    """Soft Actor-Critic (Haarnoja et al., 2018, arXiv:1801.01290)."""

    amendable = _MaximumEntropy.amendable | _TargetNetwork.amendable | {"target_update_interval"}

    name: Literal["sac"] = "sac"
    policy: Policy = "auto"
    policy_kwargs: SquashedActorKwargs = SquashedActorKwargs()
    learning_rate: LearningRate = 3e-4
    target_update_interval: TargetUpdateInterval = 1


class TQCSpec(_MaximumEntropy, _TargetNetwork):
    """Truncated Quantile Critics (Kuznetsov et al., 2020, arXiv:2005.04269)."""

    amendable = _MaximumEntropy.amendable | _TargetNetwork.amendable | {"target_update_interval"}

    name: Literal["tqc"] = "tqc"
    policy: Policy = "auto"
    policy_kwargs: QuantileCriticKwargs = QuantileCriticKwargs()
    learning_rate: LearningRate = 3e-4
    target_update_interval: TargetUpdateInterval = 1
    top_quantiles_to_drop_per_net: Annotated[int, Field(ge=0)] = 2
    """Highest quantiles of each critic left out of the target, against overestimation."""

    @model_validator(mode="after")
    def _quantiles_remain(self) -> TQCSpec:
        if self.top_quantiles_to_drop_per_net >= self.policy_kwargs.n_quantiles:
            raise ValueError(
                "`top_quantiles_to_drop_per_net` must be below `policy_kwargs.n_quantiles` = "
                f"{self.policy_kwargs.n_quantiles}, got {self.top_quantiles_to_drop_per_net}. Use 2"
            )
        return self


class CrossQSpec(_MaximumEntropy):
    """CrossQ (Bhatt et al., 2019, arXiv:1902.05605)."""

    amendable = _MaximumEntropy.amendable | {"policy_delay"}

    name: Literal["crossq"] = "crossq"
    policy: Annotated[Literal["auto", "MlpPolicy"], Field(description="Kind of network; only an MLP here.")] = "auto"
    policy_kwargs: BatchNormActorKwargs = BatchNormActorKwargs()
    learning_rate: LearningRate = 1e-3
    policy_delay: PolicyDelay = 3


class DDPGSpec(_TargetNetwork):
    """Deep Deterministic Policy Gradient (Lillicrap et al., 2015, arXiv:1509.02971)."""

    name: Literal["ddpg"] = "ddpg"
    policy: Policy = "auto"
    policy_kwargs: SingleCriticKwargs = SingleCriticKwargs()
    learning_rate: LearningRate = 1e-3


class TD3Spec(_TargetNetwork, LoggedSpec):
    """Twin Delayed DDPG (Fujimoto et al., 2018, arXiv:1802.09477)."""

    amendable = _TargetNetwork.amendable | {"policy_delay", "target_policy_noise", "target_noise_clip"}

    name: Literal["td3"] = "td3"
    policy: Policy = "auto"
    policy_kwargs: DeterministicActorKwargs = DeterministicActorKwargs()
    learning_rate: LearningRate = 1e-3
    policy_delay: PolicyDelay = 2
    target_policy_noise: NonNegativeFloat = 0.2
    """Standard deviation of the noise that smooths target actions."""
    target_noise_clip: NonNegativeFloat = 0.5
    """Largest absolute value of that noise."""
