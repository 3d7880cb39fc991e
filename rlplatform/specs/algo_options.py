"""Options that algorithms share: ranges, action noise, training frequency, and the networks' keyword arguments.

An option whose default differs between algorithms is a documented type here, so that its text stands once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from rlplatform.specs.base import Spec
from rlplatform.specs.schedules import PositiveOrSchedule

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]

LearningRate = Annotated[
    PositiveOrSchedule, Field(description="Step size of the optimizer: a number, or a schedule over the budget.")
]
BatchSize = Annotated[PositiveInt, Field(description="Transitions in each minibatch.")]
RolloutSteps = Annotated[
    PositiveInt, Field(description="Steps of each environment between two updates; a rollout is n_steps x n_envs transitions.")
]
GaeLambda = Annotated[
    Fraction, Field(description="Trade-off of bias (0) and variance (1) in generalized advantage estimation.")
]
NormalizeAdvantage = Annotated[
    bool, Field(description="Bring the advantages of each batch to mean 0 and standard deviation 1.")
]
Tau = Annotated[
    float, Field(gt=0, le=1, description="Share of the online network mixed into the target network at each update of it.")
]
TargetUpdateInterval = Annotated[
    PositiveInt,
    Field(description="Distance between updates of the target network: environment steps for DQN, else gradient steps."),
]
PolicyDelay = Annotated[PositiveInt, Field(description="Critic updates for each update of the actor.")]
ExplorationFraction = Annotated[
    float, Field(gt=0, le=1, description="Fraction of the budget over which the exploration rate falls to its final value.")
]
ExplorationRate = Annotated[
    Fraction, Field(description="Probability of a random action at the end of exploration's decay.")
]
EntropyCoefficient = Annotated[
    float | Annotated[str, Field(pattern=r"^auto(_(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)?$")],
    Field(description="Weight of the entropy bonus; `auto` learns it, `auto_0.1` learns it from 0.1 on."),
]

# --- exploration and training frequency -------------------------------------------------------------------------------


class NormalNoise(Spec):
    """Gaussian noise, independent at every step."""

    type: Literal["normal"]
    mean: float | tuple[float, ...] = 0.0
    """Mean, in units of the action scaled to [-1, 1]; one number, or one for each action dimension."""
    sigma: NonNegativeFloat | tuple[NonNegativeFloat, ...]
    """Standard deviation, in the same units."""


class OrnsteinUhlenbeckNoise(Spec):
    """Noise that is correlated in time and drifts back to its mean."""

    type: Literal["ornstein_uhlenbeck"]
    mean: float | tuple[float, ...] = 0.0
    """Mean, in units of the action scaled to [-1, 1]; one number, or one for each action dimension."""
    sigma: NonNegativeFloat | tuple[NonNegativeFloat, ...]
    """Scale of the random part, in the same units."""
    theta: PositiveFloat = 0.15
    """Rate of the drift towards the mean, per unit of time."""
    dt: PositiveFloat = 0.01
    """Time of one step."""


ActionNoise = Annotated[NormalNoise | OrnsteinUhlenbeckNoise, Field(discriminator="type")]


class TrainFrequency(Spec):
    """How much is collected between two phases of training."""

    n: PositiveInt
    """How many."""
    unit: Literal["step", "episode"] = "step"
    """Of what. Episodes need a single environment."""


def _read_pair(value: Any) -> Any:
    """Turn SB3's ``(1, "episode")`` into a mapping."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return {"n": value[0], "unit": value[1]}
    return value


TrainFreq = Annotated[
    PositiveInt | TrainFrequency,
    BeforeValidator(_read_pair),
    Field(description="Steps of all environments between two phases of training, or {n: 1, unit: episode}."),
]


class ReplayBufferKwargs(Spec):
    """Options of the replay buffer."""

    handle_timeout_termination: bool = True
    """Treat an episode cut by its time limit as unfinished when bootstrapping. Must be off for `optimize_memory_usage`."""


# --- networks ---------------------------------------------------------------------------------------------------------

Layers = tuple[PositiveInt, ...]
Activation = Literal["tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "sigmoid", "softplus", "identity"]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]


class ActorCriticLayers(Spec):
    """Hidden layers of an on-policy actor and critic."""

    pi: Layers = ()
    """Units of each hidden layer of the actor."""
    vf: Layers = ()
    """Units of each hidden layer of the value function."""


class ActorQLayers(Spec):
    """Hidden layers of an off-policy actor and its critics."""

    pi: Layers
    """Units of each hidden layer of the actor."""
    qf: Layers
    """Units of each hidden layer of each critic."""


class NetworkKwargs(Spec):
    """Keyword arguments that every gradient-trained policy takes."""

    activation_fn: Activation = "relu"
    """Non-linearity between layers."""
    features_extractor_kwargs: dict[str, JsonValue] = {}
    """Arguments of the features extractor, such as `features_dim` of the CNN."""
    normalize_images: bool = True
    """Divide image observations by 255."""
    optimizer_class: Optimizer | None = None
    """Optimizer. None: the algorithm's own."""
    optimizer_kwargs: dict[str, JsonValue] = {}
    """Arguments of the optimizer besides the learning rate, such as `eps` or `weight_decay`."""


class QNetworkKwargs(NetworkKwargs):
    """Keyword arguments of DQN's policies."""

    net_arch: Layers | None = None
    """Units of each hidden layer. None: [64, 64], for images none."""


class QuantileNetworkKwargs(QNetworkKwargs):
    """Keyword arguments of QR-DQN's policies."""

    n_quantiles: PositiveInt = 200
    """Quantiles of the return's distribution."""


class MaskableActorCriticKwargs(NetworkKwargs):
    """Keyword arguments of on-policy policies that act on masked discrete actions."""

    activation_fn: Annotated[Activation, Field(description="Non-linearity between layers.")] = "tanh"
    net_arch: Layers | ActorCriticLayers | None = None
    """Units of each hidden layer, for both or {pi, vf}. None: [64, 64], for images none."""
    ortho_init: bool = True
    """Initialise weights orthogonally."""
    share_features_extractor: bool = True
    """Actor and critic read one features extractor."""


class ActorCriticKwargs(MaskableActorCriticKwargs):
    """Keyword arguments of on-policy policies, with what continuous actions need."""

    log_std_init: float = 0.0
    """Logarithm of the initial standard deviation of continuous actions."""
    full_std: bool = True
    """gSDE: one deviation for each pair of feature and action, instead of one for each feature."""
    use_expln: bool = False
    """gSDE: keep the deviation positive by expln() instead of exp(), which grows slower."""
    squash_output: bool = False
    """gSDE: squash actions by tanh into their bounds."""


class RecurrentActorCriticKwargs(ActorCriticKwargs):
    """Keyword arguments of policies with an LSTM."""

    lstm_hidden_size: PositiveInt = 256
    """Units of each LSTM layer."""
    n_lstm_layers: PositiveInt = 1
    """LSTM layers."""
    shared_lstm: bool = False
    """Actor and critic share one LSTM; needs `enable_critic_lstm: false`."""
    enable_critic_lstm: bool = True
    """The critic has an LSTM of its own; otherwise it has a linear layer, or the actor's LSTM if shared."""
    lstm_kwargs: dict[str, JsonValue] = {}
    """Further arguments of torch's LSTM, such as `dropout`."""


class DeterministicActorKwargs(NetworkKwargs):
    """Keyword arguments of TD3's and DDPG's policies."""

    net_arch: Layers | ActorQLayers | None = None
    """Units of each hidden layer, for both or {pi, qf}. None: the algorithm's own, 256 to 1024 units wide."""
    n_critics: PositiveInt = 2
    """Critics."""
    share_features_extractor: bool = False
    """Actor and critics read one features extractor."""


class SquashedActorKwargs(DeterministicActorKwargs):
    """Keyword arguments of SAC's policies."""

    log_std_init: float = -3.0
    """gSDE: logarithm of the initial standard deviation."""
    use_expln: bool = False
    """gSDE: keep the deviation positive by expln() instead of exp(), which grows slower."""
    clip_mean: NonNegativeFloat = 2.0
    """gSDE: largest absolute value of the mean before squashing."""


class QuantileCriticKwargs(SquashedActorKwargs):
    """Keyword arguments of TQC's policies."""

    n_quantiles: PositiveInt = 25
    """Quantiles of each critic."""


class BatchNormActorKwargs(SquashedActorKwargs):
    """Keyword arguments of CrossQ's policy."""

    batch_norm: bool = True
    """Normalise each layer's input with batch renormalisation."""
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the newest batch in the running statistics."""
    batch_norm_eps: PositiveFloat = 0.001
    """Added to the variance before the square root."""
    renorm_warmup_steps: Annotated[int, Field(ge=0)] = 100_000
    """Updates before the running statistics are used."""


class SearchPolicyKwargs(Spec):
    """Keyword arguments of ARS's policies."""

    net_arch: Layers | None = None
    """Units of each hidden layer of `MlpPolicy`. None: [64, 64]."""
    activation_fn: Activation = "relu"
    """Non-linearity between layers of `MlpPolicy`."""
    with_bias: bool = True
    """Layers have a bias."""
    squash_output: bool = True
    """Squash continuous actions by tanh into their bounds."""
