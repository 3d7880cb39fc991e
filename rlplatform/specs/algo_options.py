"""Options that algorithms share: ranges, action noise, training frequency.

An option whose default differs between algorithms is a documented type here, so that its text stands once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from rlplatform.specs.base import Spec
from rlplatform.specs.one_of import one_of
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
    PositiveInt,
    Field(description="Steps of each environment between two updates; a rollout is n_steps x n_envs transitions."),
]
GaeLambda = Annotated[
    Fraction, Field(description="Trade-off of bias (0) and variance (1) in generalized advantage estimation.")
]
NormalizeAdvantage = Annotated[
    bool, Field(description="Bring the advantages of each batch to mean 0 and standard deviation 1.")
]
Tau = Annotated[
    float, Field(gt=0, le=1, description="Share of the online network mixed in at each update of the target network.")
]
TargetUpdateInterval = Annotated[
    PositiveInt,
    Field(description="Distance between updates of the target network: for DQN in steps, else in updates."),
]
PolicyDelay = Annotated[PositiveInt, Field(description="Critic updates for each update of the actor.")]
ExplorationFraction = Annotated[
    float, Field(gt=0, le=1, description="Fraction of the budget after which the exploration rate is final.")
]
FinalExplorationRate = Annotated[
    Fraction, Field(description="Probability of a random action at the end of exploration's decay.")
]
_LearnedCoefficient = Annotated[str, Field(pattern=r"^auto(_(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)?$")]
EntropyCoefficient = Annotated[
    NonNegativeFloat | _LearnedCoefficient,
    one_of("a number, `auto`, or `auto_` and a number", number=NonNegativeFloat, text=_LearnedCoefficient),
    Field(description="Weight of the entropy bonus; `auto` learns it, `auto_0.1` learns it from 0.1 on."),
]
TargetEntropy = Annotated[
    float | Literal["auto"],
    one_of("a number or `auto`", number=float, text=Literal["auto"]),
    Field(description="Entropy that `ent_coef: auto` aims at, in nats. `auto`: minus the number of action dimensions."),
]
Policy = Annotated[
    Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"],
    Field(description="Kind of network. `auto`: CNN for images, several inputs for dictionaries, else MLP."),
]
LstmPolicy = Annotated[
    Literal["auto", "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"],
    Field(description="Kind of network, with an LSTM. `auto`: by the observation space, as for other algorithms."),
]

# --- exploration and training frequency -------------------------------------------------------------------------------


_PerDimension = Annotated[tuple[float, ...], Field(min_length=1)]
_Noise = Annotated[
    float | _PerDimension, one_of("a number, or one for each action dimension", number=float, sequence=_PerDimension)
]


class _NoiseSpec(Spec):
    sigma: _Noise
    """Standard deviation in units of the action scaled to [-1, 1]: one number, or one for each action dimension."""
    mean: _Noise = 0.0
    """Mean, likewise."""

    @field_validator("sigma")
    @classmethod
    def _never_negative(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if min(value if isinstance(value, tuple) else (value,)) < 0:
            raise ValueError(f"must be ≥ 0, got {value}. Use 0.1")
        return value


class NormalNoise(_NoiseSpec):
    """Gaussian noise, independent at every step."""

    type: Literal["normal"] = "normal"


class OrnsteinUhlenbeckNoise(_NoiseSpec):
    """Noise that is correlated in time and drifts back to its mean."""

    type: Literal["ornstein_uhlenbeck"] = "ornstein_uhlenbeck"
    theta: PositiveFloat = 0.15
    """Rate of the drift towards the mean, per unit of time."""
    dt: PositiveFloat = 0.01
    """Time of one step."""


def _noise_by_type(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, Mapping):
        return handler(value)
    kind = value.get("type", "normal")
    if kind == "normal":
        return NormalNoise.model_validate(value)
    if kind == "ornstein_uhlenbeck":
        return OrnsteinUhlenbeckNoise.model_validate(value)
    raise ValueError(f"`type` must be `normal` or `ornstein_uhlenbeck`, got {kind!r}")


ActionNoise = Annotated[NormalNoise | OrnsteinUhlenbeckNoise, WrapValidator(_noise_by_type)]


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
    one_of("a number of steps, or {n, unit}", number=PositiveInt, mapping=TrainFrequency),
    BeforeValidator(_read_pair),
    Field(description="Steps of all environments between two phases of training, or {n: 1, unit: episode}."),
]


class ReplayBufferKwargs(Spec):
    """Options of the replay buffer."""

    handle_timeout_termination: bool = True
    """Bootstrap at an episode's end that is only its time limit. Must be off for `optimize_memory_usage`."""
