"""One turn of each family's training loop: collect one rollout, update once.

SB3's `learn` is a loop around these calls. The session turns it by hand, because entering `learn` again and again
resets the logger, the action noise and the totals. Every family that the catalog knows has one function here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sb3_contrib import ARS
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

Advance = Callable[[Any, BaseCallback], None]


def advance_on_policy(model: OnPolicyAlgorithm, callback: BaseCallback) -> None:
    """Collect `n_steps` from every environment and update on them."""
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
    model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
    model.train()


def advance_off_policy(model: OffPolicyAlgorithm, callback: BaseCallback) -> None:
    """Collect `train_freq` and, once `learning_starts` is past, take the gradient steps that it earned."""
    assert model.env is not None
    assert model.replay_buffer is not None
    rollout = model.collect_rollouts(
        model.env,
        train_freq=model.train_freq,  # type: ignore[arg-type]  # an int only before _setup_model
        action_noise=model.action_noise,
        callback=callback,
        learning_starts=model.learning_starts,
        replay_buffer=model.replay_buffer,
        log_interval=None,
    )
    if model.num_timesteps > model.learning_starts:
        gradient_steps = model.gradient_steps if model.gradient_steps >= 0 else rollout.episode_timesteps
        if gradient_steps > 0:
            model.train(batch_size=model.batch_size, gradient_steps=gradient_steps)


def advance_ars(model: ARS, callback: BaseCallback) -> None:
    """Evaluate one population of perturbed policies and move the policy towards the best of them."""
    model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
    model._do_one_update(callback, None)


LOOPS: Mapping[str, Advance] = {
    "on_policy": advance_on_policy,
    "off_policy": advance_off_policy,
    "ars": advance_ars,
}
"""The loop of each `AlgorithmEntry.family`."""
