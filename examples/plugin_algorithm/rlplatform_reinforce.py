"""REINFORCE with a learned baseline, as a package of its own: rlplatform finds it by its entry point."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy
from stable_baselines3.common.policies import MultiInputActorCriticPolicy as MultiInputPolicy
from torch.nn import functional


class Reinforce(OnPolicyAlgorithm):
    """REINFORCE with a learned baseline: one step along the gradient of each rollout's returns.

    Source: R. J. Williams, 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning", Machine Learning 8, equation 11, with the value function as baseline. Returns that the rollout's end cuts
    off are completed by the value function.

    Args:
        policy: Name of the policy class.
        env: Environments.
        learning_rate: Step size of the optimizer, or a schedule.
        n_steps: Steps of each environment for one update.
        gamma: Discount of future rewards.
        vf_coef: Weight of the baseline's loss.
        max_grad_norm: Gradients are scaled down to this norm.
        policy_kwargs: Arguments of the policy.
        verbose: SB3's verbosity.
        seed: Seed of everything random.
        device: Torch device.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: Any,
        learning_rate: Any = 1e-3,
        n_steps: int = 128,
        gamma: float = 0.99,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=1.0,  # Makes the buffer's advantages returns minus the baseline.
            ent_coef=0.0,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )

    def train(self) -> None:
        """Update the policy once on the whole rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        rollout = next(iter(self.rollout_buffer.get(batch_size=None)))
        actions = rollout.actions
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_prob, _ = self.policy.evaluate_actions(rollout.observations, actions)
        advantages = (rollout.advantages - rollout.advantages.mean()) / (rollout.advantages.std() + 1e-8)
        policy_loss = -(advantages * log_prob).mean()
        value_loss = functional.mse_loss(values.flatten(), rollout.returns)
        self.policy.optimizer.zero_grad()
        (policy_loss + self.vf_coef * value_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/policy_loss", policy_loss.item())
        self.logger.record("train/value_loss", value_loss.item())
