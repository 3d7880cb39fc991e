"""The torch module that becomes `policy.onnx`: from the environment's observation to an action ready for it.

    inputs ─▶ Encoder (normalise, channels first) ─▶ a head for the policy's family ─▶ Decoder (clip, unscale, dtype)

Each head repeats what the family's `predict` does in SB3, from the same sub-networks, without torch's distribution
objects, whose checks cannot be traced. Tests compare every one with `predict`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common import distributions as sb3
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from rlplatform.algos.grpo.policies import ActorPolicy
from rlplatform.errors import BundleError
from rlplatform.policy.bundle import DistributionType
from rlplatform.policy.sampling import MASKED_LOGIT

Observation = Tensor | dict[str, Tensor]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Statistics:
    """What to subtract and divide one part of an observation by, float64, and where to clip it."""

    mean: np.ndarray
    var: np.ndarray
    epsilon: float
    clip: float


@dataclass(frozen=True)
class Head:
    """How one family of policies acts."""

    type: DistributionType
    parameters: tuple[str, ...]
    act: Callable[[Observation, Mapping[str, Tensor]], Outputs]
    """From the encoded observation and the other inputs to every output but the decoded action."""
    squashed: bool = False
    """The action lies in [-1, 1] and is to be unscaled."""
    nvec: tuple[int, ...] = ()
    takes_masks: bool = False
    state: tuple[tuple[str, nn.LSTM], ...] = ()
    has_value: bool = True


class PolicyGraph(nn.Module):
    """The whole graph. Its positional inputs are named by `input_names`."""

    def __init__(
        self,
        policy: BasePolicy,
        head: Head,
        own_space: spaces.Space[Any],
        statistics: Mapping[str, Statistics],
        input_names: tuple[str, ...],
        output_names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.policy = policy
        self.head, self.own_space, self.statistics = head, own_space, statistics
        self.input_names, self.output_names = input_names, output_names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors named by `output_names`."""
        given = dict(zip(self.input_names, inputs, strict=True))
        outputs = self.head.act(self._encode(given), given)
        outputs["action"] = _decode(outputs["action"], self.policy.action_space, squashed=self.head.squashed)
        return tuple(outputs[name] for name in self.output_names)

    def _encode(self, given: Mapping[str, Tensor]) -> Observation:
        seen = self.policy.observation_space
        if isinstance(self.own_space, spaces.Dict):
            inner = cast(spaces.Dict, seen)
            return {
                key: self._encode_part(given[f"obs/{key}"], key, part, inner[key])
                for key, part in self.own_space.spaces.items()
            }
        return self._encode_part(given["obs"], "", self.own_space, seen)

    def _encode_part(self, value: Tensor, key: str, own: spaces.Space[Any], seen: spaces.Space[Any]) -> Tensor:
        if (statistics := self.statistics.get(key)) is not None:
            # VecNormalize computes in float64 and rounds once, at the end.
            mean, scale = (
                torch.as_tensor(array, dtype=torch.float64, device=value.device)
                for array in (statistics.mean, np.sqrt(statistics.var + statistics.epsilon))
            )
            value = ((value.double() - mean) / scale).clamp(-statistics.clip, statistics.clip).float()
        if own.shape != seen.shape:
            value = value.permute(0, 3, 1, 2)
        return value


def find_head(policy: BasePolicy) -> Head:
    """Return how `policy` acts, by the family of its class.

    Raises:
        BundleError: The class belongs to no family that is known here.
    """
    match policy:
        case RecurrentActorCriticPolicy():
            return _recurrent(policy)
        case ActorCriticPolicy() | MaskableActorCriticPolicy():
            return _actor_critic(policy)
        case ActorPolicy():
            return _actor(policy)
        case SACPolicy() | TQCPolicy() | CrossQPolicy():
            return _squashed(policy)
        case TD3Policy():
            return Head(
                "deterministic", (), lambda obs, _: {"action": policy.actor(obs)}, squashed=True, has_value=False
            )
        case DQNPolicy():
            return _q_values(policy.q_net, policy.q_net)
        case QRDQNPolicy():
            return _q_values(policy.quantile_net, lambda obs: policy.quantile_net(obs).mean(dim=1))
        case ARSPolicy():
            return _random_search(policy)
    raise BundleError(
        f"A policy of the class {type(policy).__name__} cannot be published: none of the policy classes of "
        "Stable-Baselines3 and sb3-contrib is its base. Derive it from one of them."
    )


def _features(policy: BasePolicy, obs: Observation, extractor: nn.Module) -> Tensor:
    # Not policy.extract_features: actor-critic policies override it to return a pair.
    return BaseModel.extract_features(policy, cast(Any, obs), cast(Any, extractor))


def _features_of_both(policy: Any, obs: Observation) -> tuple[Tensor, Tensor]:
    """Return what actor and critic see, computed once where they share it: each node costs a small policy 2 µs."""
    features = _features(policy, obs, policy.pi_features_extractor)
    if policy.vf_features_extractor is policy.pi_features_extractor:
        return features, features
    return features, _features(policy, obs, policy.vf_features_extractor)


def _actor_critic(policy: Any) -> Head:
    masks = isinstance(policy, MaskableActorCriticPolicy)

    def act(obs: Observation, given: Mapping[str, Tensor]) -> Outputs:
        features_pi, features_vf = _features_of_both(policy, obs)
        outputs = _draw(policy, policy.mlp_extractor.forward_actor(features_pi), given.get("action_masks"))
        value = policy.value_net(policy.mlp_extractor.forward_critic(features_vf)).squeeze(1)
        return outputs | {"value": value}

    return _actor_critic_head(policy, act, takes_masks=masks)


def _actor(policy: ActorPolicy) -> Head:
    def act(obs: Observation, _: Mapping[str, Tensor]) -> Outputs:
        raw = policy.raw(cast(Any, obs))
        if policy.choices:
            single = isinstance(policy.action_space, spaces.Discrete)
            return _categorical(raw, None, tuple(policy.choices), single=single)
        if isinstance(policy.action_space, spaces.MultiBinary):
            return {"action": raw > 0, "logits": raw}
        return {"action": raw, "mean": raw, "log_std": torch.zeros_like(raw) + policy.log_std}

    kind: DistributionType = "diag_gaussian"
    if isinstance(policy.action_space, spaces.Discrete):
        kind = "categorical"
    elif isinstance(policy.action_space, spaces.MultiDiscrete):
        kind = "multi_categorical"
    elif isinstance(policy.action_space, spaces.MultiBinary):
        kind = "bernoulli"
    parameters = ("mean", "log_std") if kind == "diag_gaussian" else ("logits",)
    return Head(kind, parameters, act, nvec=tuple(policy.choices), has_value=False)


def _recurrent(policy: RecurrentActorCriticPolicy) -> Head:
    critic = policy.lstm_critic

    def act(obs: Observation, given: Mapping[str, Tensor]) -> Outputs:
        keep = 1.0 - given["episode_start"].float().reshape(1, -1, 1)

        def remember(lstm: nn.LSTM, name: str, features: Tensor) -> tuple[Tensor, Outputs]:
            hidden, cell = (given[f"state/{name}_{part}"] * keep for part in ("h", "c"))
            output, (hidden, cell) = lstm(features.unsqueeze(0), (hidden, cell))
            return output.squeeze(0), {f"next_state/{name}_h": hidden, f"next_state/{name}_c": cell}

        features_pi, features_vf = _features_of_both(policy, obs)
        memory_pi, state = remember(policy.lstm_actor, "pi", features_pi)
        if critic is not None:
            memory_vf, state_vf = remember(critic, "vf", features_vf)
            state |= state_vf
        else:
            memory_vf = memory_pi if policy.critic is None else policy.critic(features_vf)
        value = policy.value_net(policy.mlp_extractor.forward_critic(memory_vf)).squeeze(1)
        return _draw(policy, policy.mlp_extractor.forward_actor(memory_pi), None) | {"value": value} | state

    lstms = {"pi": policy.lstm_actor} | ({} if critic is None else {"vf": critic})
    return _actor_critic_head(
        policy, act, state=tuple((f"state/{n}_{part}", lstm) for n, lstm in lstms.items() for part in ("h", "c"))
    )


def _actor_critic_head(
    policy: Any,
    act: Callable[[Observation, Mapping[str, Tensor]], Outputs],
    *,
    takes_masks: bool = False,
    state: tuple[tuple[str, nn.LSTM], ...] = (),
) -> Head:
    choices = _choices(policy)
    squashed = bool(policy.squash_output)
    kind: DistributionType
    parameters: tuple[str, ...]
    if choices:
        single = isinstance(policy.action_space, spaces.Discrete)
        kind, parameters = ("categorical" if single else "multi_categorical"), ("logits",)
    elif isinstance(policy.action_dist, sb3.BernoulliDistribution):
        kind, parameters = "bernoulli", ("logits",)
    else:
        kind, parameters = ("squashed_gaussian" if squashed else "diag_gaussian"), ("mean", "log_std")
    return Head(kind, parameters, act, squashed, choices, takes_masks, state)


def _choices(policy: Any) -> tuple[int, ...]:
    # MaskablePPO draws each bit of a MultiBinary action as a choice of two.
    distribution = policy.action_dist
    if (dims := getattr(distribution, "action_dims", None)) is not None:
        return tuple(int(n) for n in dims) if not isinstance(distribution, sb3.BernoulliDistribution) else ()
    return (int(distribution.action_dim),) if isinstance(policy.action_space, spaces.Discrete) else ()


def _draw(policy: Any, latent: Tensor, masks: Tensor | None) -> Outputs:
    raw: Tensor = policy.action_net(latent)
    if choices := _choices(policy):
        return _categorical(raw, masks, choices, single=isinstance(policy.action_space, spaces.Discrete))
    distribution = policy.action_dist
    if isinstance(distribution, sb3.BernoulliDistribution):
        return {"action": raw > 0, "logits": raw}
    if isinstance(distribution, sb3.StateDependentNoiseDistribution):
        return _noisy(raw, distribution, policy.log_std, latent, squashed=policy.squash_output)
    return {"action": raw, "mean": raw, "log_std": torch.zeros_like(raw) + policy.log_std}


def _categorical(raw: Tensor, masks: Tensor | None, nvec: tuple[int, ...], *, single: bool) -> Outputs:
    if single:
        logits = _normalized(raw, masks)
        return {"action": logits.argmax(dim=1), "logits": logits}
    choices = raw.split(nvec, dim=1)
    allowed = (None,) * len(nvec) if masks is None else masks.split(nvec, dim=1)
    parts = [_normalized(*both) for both in zip(choices, allowed, strict=True)]
    return {"action": torch.stack([part.argmax(dim=1) for part in parts], dim=1), "logits": torch.cat(parts, dim=1)}


def _normalized(raw: Tensor, allowed: Tensor | None) -> Tensor:
    logits = torch.log_softmax(raw, dim=1)
    if allowed is None:
        return logits
    return torch.log_softmax(torch.where(allowed, logits, torch.full_like(logits, float(MASKED_LOGIT))), dim=1)


def _noisy(
    mean: Tensor, distribution: sb3.StateDependentNoiseDistribution, log_std: Tensor, latent: Tensor, *, squashed: bool
) -> Outputs:
    """Give the marginal over exploration matrices of gSDE.

    Source: Raffin, Kober, Stulp (2021), arXiv:2005.05719, eq. 7: the variance is (latent ** 2) @ (std ** 2).
    """
    variance = torch.mm(latent**2, distribution.get_std(log_std) ** 2)
    return {
        "action": torch.tanh(mean) if squashed else mean,
        "mean": mean,
        "log_std": 0.5 * torch.log(variance + distribution.epsilon),
    }


def _squashed(policy: Any) -> Head:
    actor = policy.actor

    def act(obs: Observation, _: Mapping[str, Tensor]) -> Outputs:
        mean, log_std, sde = actor.get_action_dist_params(obs)
        if sde:
            return _noisy(mean, actor.action_dist, log_std, sde["latent_sde"], squashed=True)
        return {"action": torch.tanh(mean), "mean": mean, "log_std": log_std}

    return Head("squashed_gaussian", ("mean", "log_std"), act, squashed=True, has_value=False)


def _q_values(network: BasePolicy, q_values: Callable[[Any], Tensor]) -> Head:
    def act(obs: Observation, _: Mapping[str, Tensor]) -> Outputs:
        values = q_values(obs)
        return {"action": values.argmax(dim=1), "q_values": values, "value": values.max(dim=1).values}

    return Head("greedy", ("q_values",), act, nvec=(int(cast(spaces.Discrete, network.action_space).n),))


def _random_search(policy: ARSPolicy) -> Head:
    discrete = isinstance(policy.action_space, spaces.Discrete)

    def act(obs: Observation, _: Mapping[str, Tensor]) -> Outputs:
        raw = policy.action_net(_features(policy, obs, policy.features_extractor))
        return {"action": raw.argmax(dim=1), "scores": raw} if discrete else {"action": raw}

    if discrete:
        n = int(cast(spaces.Discrete, policy.action_space).n)
        return Head("greedy", ("scores",), act, nvec=(n,), has_value=False)
    return Head("deterministic", (), act, squashed=policy.squash_output, has_value=False)


def _decode(action: Tensor, space: spaces.Space[Any], *, squashed: bool) -> Tensor:
    """Turn the network's action into one for the environment, as the end of SB3's `predict` does."""
    dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
    shape = cast(tuple[int, ...], space.shape)
    if action.shape[1:] != shape:
        action = action.reshape(-1, *shape)
    if action.dtype != dtype:
        action = action.to(dtype)
    if not isinstance(space, spaces.Box):
        return action
    low, high = (torch.as_tensor(bound, device=action.device) for bound in (space.low, space.high))
    if squashed:
        return low + (0.5 * (action + 1.0) * (high - low))
    return torch.minimum(torch.maximum(action, low), high)
