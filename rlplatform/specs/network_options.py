"""Keyword arguments of the algorithms' networks: what each policy class takes, with its defaults.

A field whose default differs between policies and is None there says that the policy's own default holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from rlplatform.specs.algo_options import NonNegativeFloat, PositiveFloat, PositiveInt
from rlplatform.specs.base import Spec
from rlplatform.specs.one_of import one_of

Critics = Annotated[PositiveInt, Field(description="Critics; the smallest of their values is believed.")]
Layers = tuple[PositiveInt, ...]
Activation = Annotated[
    Literal["tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "sigmoid", "softplus", "identity"],
    Field(description="Non-linearity between layers."),
]
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


ActorCriticArchitecture = Annotated[
    Layers | ActorCriticLayers, one_of("a list of units, or {pi, vf}", sequence=Layers, mapping=ActorCriticLayers)
]
ActorQArchitecture = Annotated[
    Layers | ActorQLayers, one_of("a list of units, or {pi, qf}", sequence=Layers, mapping=ActorQLayers)
]


class NetworkKwargs(Spec):
    """Keyword arguments that every gradient-trained policy takes."""

    activation_fn: Activation = "relu"
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


class ActorKwargs(NetworkKwargs):
    """Keyword arguments of policies without a critic."""

    activation_fn: Activation = "tanh"
    net_arch: Layers | None = None
    """Units of each hidden layer. None: [64, 64], for images none."""
    ortho_init: bool = True
    """Initialise weights orthogonally."""
    log_std_init: float = 0.0
    """Logarithm of the initial standard deviation of continuous actions."""


class MaskableActorCriticKwargs(NetworkKwargs):
    """Keyword arguments of on-policy policies that act on masked discrete actions."""

    activation_fn: Activation = "tanh"
    net_arch: ActorCriticArchitecture | None = None
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

    @model_validator(mode="after")
    def _one_critic_input(self) -> RecurrentActorCriticKwargs:
        if self.shared_lstm and (self.enable_critic_lstm or not self.share_features_extractor):
            raise ValueError(
                "`shared_lstm: true` needs `enable_critic_lstm: false` and `share_features_extractor: true`. Set both"
            )
        return self


class DeterministicActorKwargs(NetworkKwargs):
    """Keyword arguments of TD3's policies."""

    net_arch: ActorQArchitecture | None = None
    """Units of each hidden layer, for both or {pi, qf}. None: the algorithm's own, 256 to 1024 units wide."""
    n_critics: Critics = 2
    share_features_extractor: bool = False
    """Actor and critics read one features extractor."""


class SingleCriticKwargs(DeterministicActorKwargs):
    """Keyword arguments of DDPG's policies, which are TD3's with one critic."""

    n_critics: Critics = 1


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
    with_bias: bool | None = None
    """Layers have a bias. None: yes in `MlpPolicy`, no in `LinearPolicy`."""
    squash_output: bool | None = None
    """Squash continuous actions by tanh into their bounds. None: yes in `MlpPolicy`, no in `LinearPolicy`."""
