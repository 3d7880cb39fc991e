"""The group of all actions in one state: each is tried in a copy of the environment.

What sb3-grpo (kechirojp, 2025) meant: it compared the actions of a state by their rewards, but with the one next state
that the sampled action had led to, so that rewards of the next state were equal and nothing was ever learned. Here
every action is stepped. In CartPole an action moves the pole's angle only in the second step, so one step is not enough
there either: after it, each copy follows the policy for `horizon` steps in all.

Only environments of this process whose copies are proven to go on as they do can be used: many that hold a physics
engine (Box2D, MuJoCo) come back from a copy as just constructed.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from rlplatform.algos.grpo.policies import ActorPolicy
from rlplatform.algos.grpo.rewards import RewardFunction, evaluate_rewards
from rlplatform.errors import AlgorithmError

_CHECKED_STEPS = 20
_STEPS_BEFORE = 3
_COPY_ERRORS = (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What somebody else's environment may raise where its state cannot be copied."""


class Counterfactual:
    """Tries every action in copies of the environments.

    Args:
        env: Environments with Discrete actions, stepped in this process.
        horizon: Steps that each copy is followed, at least 1.
        reward_function: Replaces the environments' reward.

    Raises:
        AlgorithmError: The environments cannot be copied from here.
    """

    def __init__(self, env: VecEnv, horizon: int, reward_function: RewardFunction | str | None = None) -> None:
        self._normalize: VecNormalize | None = None
        around = env
        while isinstance(around, VecEnvWrapper):
            if isinstance(around, VecNormalize):
                self._normalize = around
            elif not isinstance(around, VecMonitor):
                raise AlgorithmError(
                    f"`advantage: actions` cannot look through the wrapper {type(around).__name__}. Wrap the single "
                    "environments instead, or use `advantage: timestep`."
                )
            around = around.venv
        if not isinstance(around, DummyVecEnv):
            raise AlgorithmError(
                f"`advantage: actions` needs environments of this process to copy, got {type(around).__name__}. Use "
                "`env.backend: sync`, or `advantage: timestep`."
            )
        self.env, self.horizon, self.reward_function = around, horizon, reward_function
        self.n_actions = int(_discrete(around).n)

    def check_copies(self) -> int:
        """Check that copies go on as their originals, and return the environment steps that took; reset afterwards.

        Raises:
            AlgorithmError: They do not.
        """
        original = self.env.envs[0]
        if not _copies_are_exact(original):
            name = original.spec.id if original.spec is not None else type(original.unwrapped).__name__
            raise AlgorithmError(
                f"`advantage: actions` needs copies of the environment, and a copy of `{name}` does not go on as the "
                "original does. Use `advantage: timestep`."
            )
        return _STEPS_BEFORE + 3 * _CHECKED_STEPS

    def values(self, policy: ActorPolicy, shown: Any, gamma: float) -> tuple[NDArray[np.float64], int]:
        """Return what each action would lead to, and the environment steps that it took to know.

        Args:
            policy: Acts from the second step on.
            shown: The observations now, ``[n_envs, …]``, as the policy sees them.
            gamma: Discount.

        Returns:
            Discounted rewards ``[n_envs, n_actions]``, and the number of steps.
        """
        n = self.n_actions
        obs = np.asarray(shown if self._normalize is None else self._normalize.get_original_obs())
        copies = [copy.deepcopy(env) for env in self.env.envs for _ in range(n)]
        seen = np.repeat(obs, n, axis=0)
        actions = np.tile(np.arange(n), len(self.env.envs))
        returns = np.zeros(len(copies))
        running = np.arange(len(copies))
        discount, n_steps = 1.0, 0
        for _ in range(self.horizon):
            results = [copies[i].step(action) for i, action in zip(running, actions, strict=True)]
            n_steps += len(running)
            following = np.stack([np.asarray(result[0], dtype=obs.dtype) for result in results])
            if self.reward_function is None:
                rewards = np.array([float(result[1]) for result in results])
            else:
                rewards = evaluate_rewards(self.reward_function, seen, actions, following)
            returns[running] += discount * rewards
            on = np.array([not (result[2] or result[3]) for result in results])
            if not on.any():
                break
            running, seen, discount = running[on], following[on], discount * gamma
            actions = self._act(policy, seen)
        return returns.reshape(-1, n), n_steps

    def _act(self, policy: ActorPolicy, obs: NDArray[Any]) -> NDArray[np.int64]:
        shown = obs if self._normalize is None else self._normalize.normalize_obs(obs)
        with torch.no_grad():
            actions, _ = policy(torch.as_tensor(shown, device=policy.device))
        return np.asarray(actions.cpu().numpy())


def _discrete(env: VecEnv) -> spaces.Discrete:
    if not isinstance(env.action_space, spaces.Discrete) or not isinstance(env.observation_space, spaces.Box):
        raise AlgorithmError(
            "`advantage: actions` needs Discrete actions and Box observations, got "
            f"{env.action_space} and {env.observation_space}. Use `advantage: timestep`."
        )
    return env.action_space


def _copies_are_exact(env: gym.Env[Any, Any]) -> bool:
    """Return whether a copy goes on as its original, also after another copy was stepped."""
    rng = np.random.default_rng(0)
    actions = rng.integers(int(getattr(env.action_space, "n", 1)), size=(3, _CHECKED_STEPS))
    # Not at the start, where a copy that is as just constructed may look right.
    for action in actions[2][:_STEPS_BEFORE]:
        if _ended(env.step(action)):
            env.reset()
    try:
        twin, other = copy.deepcopy(env), copy.deepcopy(env)
        for action in actions[0]:
            if _ended(other.step(action)):
                break
        for action in actions[1]:
            one, two = env.step(action), twin.step(action)
            if not np.array_equal(one[0], two[0]) or one[1:4] != two[1:4]:
                return False
            if _ended(one):
                break
    except _COPY_ERRORS:
        return False
    return True


def _ended(result: tuple[Any, ...]) -> bool:
    return bool(result[2] or result[3])
