"""One spec for each algorithm: exactly the options of its constructor, under SB3's names, with SB3's defaults.

What the platform decides itself is not here: ``env``, ``seed``, ``device``, ``verbose``, ``tensorboard_log``, and classes
such as ``replay_buffer_class``, which a file cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlplatform.algos.catalog import find_algorithm
from rlplatform.errors import SpecError, UnknownNameError, did_you_mean
from rlplatform.specs.algo_options import (
    ActionNoise,
    ActorCriticKwargs,
    BatchNormActorKwargs,
    BatchSize,
    DeterministicActorKwargs,
    EntropyCoefficient,
    ExplorationFraction,
    ExplorationRate,
    Fraction,
    GaeLambda,
    LearningRate,
    MaskableActorCriticKwargs,
    NonNegativeFloat,
    NormalizeAdvantage,
    PolicyDelay,
    PositiveFloat,
    PositiveInt,
    QNetworkKwargs,
    QuantileCriticKwargs,
    QuantileNetworkKwargs,
    RecurrentActorCriticKwargs,
    ReplayBufferKwargs,
    RolloutSteps,
    SearchPolicyKwargs,
    SquashedActorKwargs,
    TargetUpdateInterval,
    Tau,
    TrainFreq,
    TrainFrequency,
)
from rlplatform.specs.base import Spec
from rlplatform.specs.schedules import PositiveOrSchedule, UnitOrSchedule

Policy = Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"]
LstmPolicy = Literal["auto", "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"]


class AlgoSpec(Spec):
    """What every algorithm has. A spec is always one of the subclasses; :func:`parse_algo` finds which."""

    amendable: ClassVar[frozenset[str]] = frozenset({"learning_rate"})
    """Options that may change on a live model."""

    name: str
    """The algorithm, from the catalog."""
    policy: str = "auto"
    """Kind of network. `auto`: CNN for images, several inputs for dictionaries, else MLP."""
    policy_kwargs: Any = {}
    """What the networks look like."""

    def check_n_envs(self, n_envs: int) -> None:
        """Check the options that depend on the number of environments.

        Raises:
            SpecError: If they do not fit.
        """


class _Logged(AlgoSpec):
    stats_window_size: PositiveInt = 100
    """Episodes over which the reported return and length are averaged."""


class _StateDependentExploration(AlgoSpec):
    use_sde: bool = False
    """Explore by generalized state-dependent noise (gSDE) instead of independent Gaussian noise; continuous actions only."""
    sde_sample_freq: Annotated[int, Field(ge=-1)] = -1
    """Draw new gSDE noise every this many steps. -1: only at the start of a rollout."""


# --- on-policy --------------------------------------------------------------------------------------------------------


class _OnPolicy(_Logged):
    amendable = AlgoSpec.amendable | {"gamma", "gae_lambda", "normalize_advantage"}

    n_steps: RolloutSteps
    gamma: Fraction = 0.99
    """Discount of future rewards."""
    gae_lambda: GaeLambda = 0.95
    normalize_advantage: NormalizeAdvantage = True

    def check_n_envs(self, n_envs: int) -> None:
        if self.normalize_advantage and self.n_steps * n_envs == 1:
            raise SpecError(
                "`algorithm.n_steps` x `env.n_envs` must be > 1 with `normalize_advantage`, got 1 x 1: one advantage has no "
                "standard deviation. Raise either, or set `algorithm.normalize_advantage: false`."
            )


class _Minibatches(_OnPolicy):
    amendable = _OnPolicy.amendable | {"batch_size"}

    batch_size: BatchSize

    @model_validator(mode="after")
    def _one_advantage_has_no_deviation(self) -> _Minibatches:
        if self.normalize_advantage and self.batch_size == 1:
            raise ValueError("`batch_size` must be > 1 with `normalize_advantage`, got 1. Use a power of two such as 64")
        return self

    def check_n_envs(self, n_envs: int) -> None:
        super().check_n_envs(n_envs)
        rollout = self.n_steps * n_envs
        if rollout % self.batch_size:
            sizes = " or ".join(str(size) for size in nearest_divisors(rollout, self.batch_size))
            raise SpecError(
                f"`algorithm.batch_size` must divide the rollout of n_steps x n_envs = {self.n_steps} x {n_envs} = {rollout} "
                f"transitions, got {self.batch_size}: its last minibatch would be cut short. Use {sizes}, or change `n_steps`."
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
    amendable = _Minibatches.amendable | _ActorCritic.amendable | {"n_epochs", "clip_range", "clip_range_vf", "target_kl"}

    learning_rate: LearningRate = 3e-4
    n_epochs: PositiveInt = 10
    """Passes over each rollout."""
    clip_range: UnitOrSchedule = 0.2
    """How far the probability ratio may move from 1 before its gradient is cut: a number, or a schedule."""
    clip_range_vf: PositiveOrSchedule | None = None
    """The same for the value function; depends on the scale of rewards. None: no clipping."""
    target_kl: PositiveFloat | None = None
    """End an update when the KL divergence from the old policy passes 1.5 times this. None: no limit."""


class PPOSpec(_ClippedObjective, _StateDependentExploration):
    """Proximal Policy Optimization (Schulman et al., 2017, arXiv:1707.06347)."""

    name: Literal["ppo"] = "ppo"
    policy: Policy = "auto"
    policy_kwargs: ActorCriticKwargs = ActorCriticKwargs()
    n_steps: RolloutSteps = 2048
    batch_size: BatchSize = 64


class RecurrentPPOSpec(_ClippedObjective, _StateDependentExploration):
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


class A2CSpec(_ActorCritic, _StateDependentExploration):
    """Advantage Actor-Critic (Mnih et al., 2016, arXiv:1602.01783)."""

    name: Literal["a2c"] = "a2c"
    policy: Policy = "auto"
    policy_kwargs: ActorCriticKwargs = ActorCriticKwargs()
    learning_rate: LearningRate = 7e-4
    n_steps: RolloutSteps = 5
    gae_lambda: GaeLambda = 1.0
    normalize_advantage: NormalizeAdvantage = False
    rms_prop_eps: PositiveFloat = 1e-5
    """Added to RMSProp's denominator."""
    use_rms_prop: bool = True
    """Use RMSProp instead of Adam, unless `policy_kwargs.optimizer_class` says otherwise."""


class TRPOSpec(_Minibatches, _StateDependentExploration):
    """Trust Region Policy Optimization (Schulman et al., 2015, arXiv:1502.05477)."""

    amendable = _Minibatches.amendable | {
        "cg_max_steps", "cg_damping", "line_search_shrinking_factor", "line_search_max_iter", "n_critic_updates",
        "target_kl", "sub_sampling_factor",
    }  # fmt: skip

    name: Literal["trpo"] = "trpo"
    policy: Policy = "auto"
    policy_kwargs: ActorCriticKwargs = ActorCriticKwargs()
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


# --- off-policy -------------------------------------------------------------------------------------------------------


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
        return self

    def check_n_envs(self, n_envs: int) -> None:
        if isinstance(self.train_freq, TrainFrequency) and self.train_freq.unit == "episode" and n_envs > 1:
            raise SpecError(
                f"`algorithm.train_freq` in episodes needs `env.n_envs` = 1, got {n_envs}: episodes of several environments "
                "do not end together. Give it in steps, for example `train_freq: 64`."
            )
        if self.buffer_size < n_envs * self.n_steps:
            raise SpecError(
                f"`algorithm.buffer_size` must hold n_steps x n_envs = {self.n_steps} x {n_envs} transitions, "
                f"got {self.buffer_size}. Use {max(10_000, 100 * n_envs * self.n_steps)} or more."
            )


class _QLearning(_OffPolicy, _Logged):
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
    exploration_final_eps: ExplorationRate


class DQNSpec(_QLearning):
    """Deep Q-Network (Mnih et al., 2013, arXiv:1312.5602)."""

    name: Literal["dqn"] = "dqn"
    policy: Policy = "auto"
    policy_kwargs: QNetworkKwargs = QNetworkKwargs()
    learning_rate: LearningRate = 1e-4
    exploration_fraction: ExplorationFraction = 0.1
    exploration_final_eps: ExplorationRate = 0.05
    max_grad_norm: PositiveFloat = 10.0
    """Gradients are scaled down to this norm."""


class QRDQNSpec(_QLearning):
    """Quantile Regression DQN (Dabney et al., 2017, arXiv:1710.10044)."""

    name: Literal["qrdqn"] = "qrdqn"
    policy: Policy = "auto"
    policy_kwargs: QuantileNetworkKwargs = QuantileNetworkKwargs()
    learning_rate: LearningRate = 5e-5
    exploration_fraction: ExplorationFraction = 0.005
    exploration_final_eps: ExplorationRate = 0.01
    max_grad_norm: PositiveFloat | None = None
    """Gradients are scaled down to this norm. None: never."""


class _ContinuousOffPolicy(_OffPolicy):
    amendable = _OffPolicy.amendable | {"action_noise"}

    batch_size: BatchSize = 256
    train_freq: TrainFreq = 1
    action_noise: ActionNoise | None = None
    """Noise added to actions while training: {type: normal, sigma: 0.1}. None: none."""


class _TargetNetwork(_ContinuousOffPolicy):
    amendable = _ContinuousOffPolicy.amendable | {"tau"}

    tau: Tau = 0.005


class _MaximumEntropy(_ContinuousOffPolicy, _StateDependentExploration, _Logged):
    amendable = _ContinuousOffPolicy.amendable | {"ent_coef", "target_entropy", "use_sde_at_warmup"}

    ent_coef: EntropyCoefficient = "auto"
    target_entropy: float | Literal["auto"] = "auto"
    """Entropy that `ent_coef: auto` aims at, in nats. `auto`: minus the number of action dimensions."""
    use_sde_at_warmup: bool = False
    """Explore by gSDE instead of uniformly before `learning_starts`."""


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
                f"`top_quantiles_to_drop_per_net` must be below `policy_kwargs.n_quantiles` = {self.policy_kwargs.n_quantiles}, "
                f"got {self.top_quantiles_to_drop_per_net}. Use 2"
            )
        return self


class CrossQSpec(_MaximumEntropy):
    """CrossQ (Bhatt et al., 2019, arXiv:1902.05605)."""

    amendable = _MaximumEntropy.amendable | {"policy_delay"}

    name: Literal["crossq"] = "crossq"
    policy: Literal["auto", "MlpPolicy"] = "auto"
    policy_kwargs: BatchNormActorKwargs = BatchNormActorKwargs()
    learning_rate: LearningRate = 1e-3
    policy_delay: PolicyDelay = 3


class DDPGSpec(_TargetNetwork):
    """Deep Deterministic Policy Gradient (Lillicrap et al., 2015, arXiv:1509.02971)."""

    name: Literal["ddpg"] = "ddpg"
    policy: Policy = "auto"
    policy_kwargs: DeterministicActorKwargs = DeterministicActorKwargs()
    learning_rate: LearningRate = 1e-3


class TD3Spec(_TargetNetwork, _Logged):
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


# --- random search ----------------------------------------------------------------------------------------------------


class ARSSpec(_Logged):
    """Augmented Random Search (Mania et al., 2018, arXiv:1803.07055)."""

    amendable = AlgoSpec.amendable | {"delta_std", "alive_bonus_offset", "n_eval_episodes", "n_top"}

    name: Literal["ars"] = "ars"
    policy: Literal["auto", "MlpPolicy", "LinearPolicy"] = "auto"
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
            raise ValueError(f"`n_top` must be at most `n_delta` = {self.n_delta}, got {self.n_top}")
        return self


# --- by name ----------------------------------------------------------------------------------------------------------


def spec_class(name: str) -> type[AlgoSpec]:
    """Return the spec class of an algorithm.

    Raises:
        UnknownNameError: If no algorithm has that name.
    """
    entry = find_algorithm(name)
    module, _, attribute = (entry.spec or "").partition(":")
    found: type[AlgoSpec] = getattr(import_module(module), attribute)
    return found


def parse_algo(value: Mapping[str, JsonValue] | str | AlgoSpec) -> AlgoSpec:
    """Build the spec of the algorithm that ``value["name"]`` says.

    Args:
        value: A mapping with ``name`` and the algorithm's own options, or only the name.

    Raises:
        SpecError: If there is no name, or no algorithm has it.
        pydantic.ValidationError: If an option does not exist or has a wrong value.
    """
    if isinstance(value, AlgoSpec):
        return value
    options = {"name": value} if isinstance(value, str) else dict(value)
    name = options.get("name")
    if not isinstance(name, str):
        raise SpecError(f"`algorithm.name` must be the name of an algorithm, got {name!r}. Use for example `name: ppo`.")
    try:
        cls = spec_class(name)
        options["name"] = find_algorithm(name).name
    except UnknownNameError as err:
        raise SpecError(f"`algorithm.name`: {err}") from err
    _check_known(cls, options)
    return cls.model_validate(options)


def _check_known(cls: type[AlgoSpec], options: Mapping[str, JsonValue]) -> None:
    """Refuse options that the algorithm does not have, each at its place and with the nearest name."""
    unknown = [key for key in options if key not in cls.model_fields]
    if unknown:
        raise ValidationError.from_exception_data(cls.__name__, [
            InitErrorDetails(type=PydanticCustomError("unknown_option", "{message}", {"message": (
                f"`{key}` is not an option of `{options['name']}`. {did_you_mean(key, set(cls.model_fields))}"
            )}), loc=(key,), input=options[key])
            for key in unknown
        ])  # fmt: skip


def nearest_divisors(total: int, size: int) -> list[int]:
    """Return the divisors of ``total`` next to ``size``, below and above it, without 1 if there is another."""
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    below = [n for n in divisors if 1 < n < size][-1:]
    return below + [n for n in divisors if n > size][:1] or divisors[:1]
