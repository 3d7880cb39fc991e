"""Policies that are an actor and nothing else: no value network, and so no parameter of one."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.nn import functional

_LOG_SQRT_2_PI = 0.5 * float(np.log(2.0 * np.pi))


class Evaluation(NamedTuple):
    """What a policy thinks of actions that were taken, each ``[batch]``."""

    log_prob: Tensor
    entropy: Tensor


class ActorPolicy(BasePolicy):
    """A stochastic policy: features, hidden layers, and one linear layer to the distribution's parameters.

    The distributions are Stable-Baselines3's: categorical for Discrete, one for each dimension of MultiDiscrete,
    Bernoulli for MultiBinary, and for Box a diagonal Gaussian whose deviation does not depend on the state.

    Args:
        observation_space: Of the environment.
        action_space: Of the environment.
        lr_schedule: ``lr_schedule(1)`` is the optimizer's first learning rate.
        net_arch: Units of each hidden layer. None: [64, 64], for images none.
        activation_fn: Non-linearity between layers.
        ortho_init: Initialise weights orthogonally, the last layer's small, so that the first policy is near uniform.
        log_std_init: Logarithm of the first standard deviation of continuous actions.
        features_extractor_class: From observations to features. None: the class's own.
        features_extractor_kwargs: Its arguments.
        normalize_images: Divide images by 255.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments besides the learning rate. None: for Adam, ``eps`` 1e-5 and one fused step.
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        log_std_init: float = 0.0,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if optimizer_kwargs is None:
            optimizer_kwargs = {"eps": 1e-5, "fused": True} if optimizer_class is torch.optim.Adam else {}
        extractor = features_extractor_class or self.default_features_extractor
        super().__init__(
            observation_space,
            action_space,
            extractor,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        if net_arch is None:
            net_arch = [] if extractor is NatureCNN else [64, 64]
        self.net_arch, self.activation_fn = net_arch, activation_fn
        self.ortho_init, self.log_std_init = ortho_init, log_std_init
        self.choices = _choices(action_space)
        self.features_extractor = self.make_features_extractor()
        features_dim = self.features_extractor.features_dim
        self.policy_net = nn.Sequential(*create_mlp(features_dim, -1, net_arch, activation_fn))
        last = net_arch[-1] if net_arch else features_dim
        self.action_net = nn.Linear(last, _n_outputs(action_space))
        if isinstance(action_space, spaces.Box):
            self.log_std = nn.Parameter(torch.full((self.action_net.out_features,), log_std_init))
        if ortho_init:
            gains = {self.features_extractor: 2**0.5, self.policy_net: 2**0.5, self.action_net: 0.01}
            for module, gain in gains.items():
                module.apply(partial(self.init_weights, gain=gain))
        build: Any = optimizer_class  # torch's base class does not show that every optimizer has a learning rate.
        self.optimizer = build(self.parameters(), lr=lr_schedule(1), **optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "lr_schedule": self._dummy_schedule,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "ortho_init": self.ortho_init,
            "log_std_init": self.log_std_init,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    # --- acting -------------------------------------------------------------------------------------------------------

    def raw(self, obs: PyTorchObs) -> Tensor:
        """Return the distribution's parameters: logits, or the mean of continuous actions, ``[batch, n]``."""
        outputs: Tensor = self.action_net(self.policy_net(self.extract_features(obs, self.features_extractor)))
        return outputs

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor]:
        """Return actions ``[batch, *action_shape]`` and their log probabilities ``[batch]``."""
        raw = self.raw(obs)
        actions = self._draw(raw, deterministic)
        return actions.reshape(-1, *(self.action_space.shape or ())), self._evaluate(raw, actions).log_prob

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self._draw(self.raw(observation), deterministic)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> Evaluation:
        """Return how likely actions are, and how uncertain the policy is, with gradients.

        Args:
            obs: ``[batch, …]``.
            actions: ``[batch, *action_shape]``.
        """
        return self._evaluate(self.raw(obs), actions)

    def _draw(self, raw: Tensor, deterministic: bool) -> Tensor:
        if self.choices:
            parts = [_choose(part, deterministic) for part in raw.split(self.choices, dim=1)]
            return parts[0] if isinstance(self.action_space, spaces.Discrete) else torch.stack(parts, dim=1)
        if isinstance(self.action_space, spaces.MultiBinary):
            return (raw > 0).float() if deterministic else torch.bernoulli(torch.sigmoid(raw))
        return raw if deterministic else raw + self.log_std.exp() * torch.randn_like(raw)

    def _evaluate(self, raw: Tensor, actions: Tensor) -> Evaluation:
        if self.choices:
            columns = actions.long().reshape(-1, len(self.choices)).unbind(dim=1)
            parts = [
                _categorical(logits, column)
                for logits, column in zip(raw.split(self.choices, dim=1), columns, strict=True)
            ]
            if len(parts) == 1:
                return parts[0]
            return Evaluation(*(torch.stack(column).sum(dim=0) for column in zip(*parts, strict=True)))
        actions = actions.reshape(raw.shape).to(raw.dtype)
        if isinstance(self.action_space, spaces.MultiBinary):
            log_prob = -functional.binary_cross_entropy_with_logits(raw, actions, reduction="none")
            entropy = functional.softplus(raw) - torch.sigmoid(raw) * raw
            return Evaluation(log_prob.sum(dim=1), entropy.sum(dim=1))
        distance = (actions - raw) * torch.exp(-self.log_std)
        log_prob = -0.5 * (distance**2).sum(dim=1) - (self.log_std + _LOG_SQRT_2_PI).sum()
        return Evaluation(log_prob, (self.log_std + _LOG_SQRT_2_PI + 0.5).sum().expand(len(raw)))


class ActorCnnPolicy(ActorPolicy):
    """An :class:`ActorPolicy` that reads images."""

    default_features_extractor = NatureCNN


class MultiInputActorPolicy(ActorPolicy):
    """An :class:`ActorPolicy` that reads dictionaries."""

    default_features_extractor = CombinedExtractor


def _choices(space: spaces.Space[Any]) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return [int(n) for n in space.nvec.reshape(-1)] if isinstance(space, spaces.MultiDiscrete) else []


def _n_outputs(space: spaces.Space[Any]) -> int:
    return sum(_choices(space)) or int(np.prod(space.shape or ()))


def _choose(logits: Tensor, deterministic: bool) -> Tensor:
    if deterministic:
        return logits.argmax(dim=1)
    # The largest of p / e, e exponential, is a draw from p: cheaper than torch.distributions' multinomial.
    probabilities = torch.softmax(logits, dim=1)
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=1)


def _categorical(logits: Tensor, actions: Tensor) -> Evaluation:
    log_probs = torch.log_softmax(logits, dim=1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1)
    return Evaluation(log_probs.gather(1, actions.unsqueeze(1)).squeeze(1), entropy)
