"""GRPO in the shape of Stable-Baselines3's algorithms: collect whole episodes, compare them, take clipped steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule, obs_as_tensor, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv

from rlplatform.algos.grpo.advantages import AdvantageName
from rlplatform.algos.grpo.batch import Batch, Options, Scaling, Truncation, Weighting, make_batch, useful_episodes
from rlplatform.algos.grpo.buffer import EpisodeBuffer, Flat
from rlplatform.algos.grpo.checks import check_options, warn_of_equal_actions, warn_of_unequal_starts
from rlplatform.algos.grpo.counterfactual import Counterfactual
from rlplatform.algos.grpo.groups import n_checked_steps, reset_with_seeds, starts_are_equal
from rlplatform.algos.grpo.loss import Coefficients, Loss, grpo_loss
from rlplatform.algos.grpo.policies import ActorCnnPolicy, ActorPolicy, MultiInputActorPolicy
from rlplatform.algos.grpo.rewards import RewardFunction, evaluate_rewards

_MOST_SAMPLED = 3
"""Dynamic sampling plays at most this many times the episodes of an update."""


class GRPO(OnPolicyAlgorithm):
    """Group relative policy optimisation for control: PPO's clipped steps with advantages relative to other episodes.

    An update is made on `n_groups` x `group_size` complete episodes. No value function is learned; README.md of this
    folder has the equations and says where they come from.

    Args:
        policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``, or a class derived from :class:`ActorPolicy`.
        env: The environment, or its id.
        learning_rate: A number, or a schedule over the remaining progress. It falls to 0 unless told otherwise.
        n_groups: Groups of each update.
        group_size: Episodes of a group, whose members are compared with one another; at least 2.
        n_steps: Fewest environment steps of an update; groups are added until they are reached.
        batch_size: Transitions of a minibatch, nearly: all minibatches are of one size.
        n_epochs: Passes over the transitions of an update.
        gamma: Discount.
        advantage: What a step is compared with: a key of `advantages.ADVANTAGES`, or ``actions``.
        scaling: What advantages are divided by: the deviation of the ``batch``, of the ``group``, or ``none``.
        weighting: What counts the same in the loss: each ``transition``, or as in the paper each ``episode``.
        alive_peers_only: With `timestep`, compare only with peers that still run.
        truncation: ``finite`` takes a time limit as the end; ``mask`` leaves out the steps whose return it cut.
        same_start: The members of a group start in the same state.
        dynamic_sampling: Replace groups whose members all went alike.
        overlap: Free environments begin the next update's episodes while the last ones of this update are played.
        action_horizon: With `actions`, steps for which each action's consequences are followed.
        clip_range: How far the probability ratio may fall below 1, and rise above it unless `clip_range_high` is given.
        clip_range_high: How far the ratio may rise above 1.
        ent_coef: Weight of the entropy bonus, a number or a schedule. It falls to 0 unless told otherwise.
        kl_coef: Weight of the distance from a reference policy. 0: there is none.
        reference_interval: Updates after which the reference becomes the current policy.
        max_grad_norm: Gradients are scaled down to this norm.
        target_kl: End an update when the divergence from the policy that acted passes 1.5 times this.
        log_std_min: Lower bound of the logarithm of continuous actions' deviation.
        log_std_max: Upper bound.
        reward_function: ``f(state, action, next_state)``, the reward to train on: see `rewards.py`.
        stats_window_size: Episodes over which the reported return is averaged.
        tensorboard_log: Folder of TensorBoard files.
        policy_kwargs: Arguments of the policy.
        verbose: 0: nothing is printed.
        seed: Of networks, exploration and environments.
        device: Torch device.

    Raises:
        AlgorithmError: Options exclude each other.
    """

    # SB3 declares its own classes here; these take their places, and share no base with a critic's.
    policy: ActorPolicy  # type: ignore[assignment]
    rollout_buffer: EpisodeBuffer  # type: ignore[assignment]
    _last_obs: Any
    _last_episode_starts: Any
    clip_range: Any
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorPolicy,
        "CnnPolicy": ActorCnnPolicy,
        "MultiInputPolicy": MultiInputActorPolicy,
    }

    # fmt: off
    def __init__(
        self, policy: str | type[ActorPolicy], env: GymEnv | str,
        learning_rate: float | Schedule = LinearSchedule(1e-3, 0.0, 1.0),
        n_groups: int = 1, group_size: int = 32, n_steps: int = 1, batch_size: int = 256, n_epochs: int = 4,
        gamma: float = 0.99, advantage: AdvantageName = "timestep", scaling: Scaling = "batch",
        weighting: Weighting = "transition", alive_peers_only: bool = False, truncation: Truncation = "finite",
        same_start: bool = False, dynamic_sampling: bool = False, overlap: bool = True, action_horizon: int = 8,
        clip_range: float | Schedule = 0.2, clip_range_high: float | None = None,
        ent_coef: float | Schedule = LinearSchedule(0.01, 0.0, 1.0),
        kl_coef: float = 0.0, reference_interval: int = 10, max_grad_norm: float = 0.5,
        target_kl: float | None = None, log_std_min: float = -3.0, log_std_max: float = 0.5,
        reward_function: RewardFunction | str | None = None, stats_window_size: int = 100,
        tensorboard_log: str | None = None, policy_kwargs: dict[str, Any] | None = None, verbose: int = 0,
        seed: int | None = None, device: torch.device | str = "auto", _init_setup_model: bool = True,
    ) -> None:
        init: Any = super().__init__  # It takes another policy, and no schedule of the entropy.
        init(
            policy, env, learning_rate=learning_rate, n_steps=n_steps, gamma=gamma, gae_lambda=1.0, ent_coef=ent_coef,
            vf_coef=0.0, max_grad_norm=max_grad_norm, use_sde=False, sde_sample_freq=-1,
            stats_window_size=stats_window_size, tensorboard_log=tensorboard_log, policy_kwargs=policy_kwargs,
            verbose=verbose, device=device, seed=seed, _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )
        # fmt: on
        self.n_groups, self.group_size, self.batch_size, self.n_epochs = n_groups, group_size, batch_size, n_epochs
        self.advantage, self.scaling, self.weighting = advantage, scaling, weighting
        self.alive_peers_only, self.truncation = alive_peers_only, truncation
        self.same_start, self.dynamic_sampling, self.overlap = same_start, dynamic_sampling, overlap
        self.action_horizon, self.reward_function = action_horizon, reward_function
        self.clip_range, self.clip_range_high = clip_range, clip_range_high
        self.kl_coef, self.reference_interval, self.target_kl = kl_coef, reference_interval, target_kl
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        self.reference_policy: ActorPolicy | None = None
        self._batch: Batch | None = None
        self._carried: dict[str, Any] | None = None  # Episodes of the next update that have begun already.
        self._starts_are_equal: bool | None = None  # None: not checked yet.
        self._copies_are_exact, self._n_batches = False, 0
        self._progress = 1.0
        """Remaining when the rollout began: the last one ends past the budget, where schedules have fallen to 0."""
        if self.env is not None:
            check_options(self, self.env)
        if _init_setup_model:
            self._setup_model()

    @property
    def episodes_per_update(self) -> int:
        """Complete episodes of each update, unless `n_steps` asks for more."""
        return self.n_groups * self.group_size

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        make: Any = self.policy_class
        policy = make(self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs)
        self.policy = policy.to(self.device)
        self.clip_range = FloatSchedule(self.clip_range)
        n_values = int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else 0
        self.rollout_buffer = EpisodeBuffer(
            self.observation_space, self.action_space, self.n_envs, n_values if self.advantage == "actions" else 0
        )
        if self.kl_coef > 0:
            self.reference_policy = copy.deepcopy(self.policy)
        self._maybe_recommend_cpu(ActorPolicy.__name__)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_batch", "_carried"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, variables = super()._get_torch_save_params()
        return names + (["reference_policy"] if self.reference_policy is not None else []), variables

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "GRPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train until this many environment steps are done; the last update goes past it."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    # --- collecting ---------------------------------------------------------------------------------------------------

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: EpisodeBuffer,  # type: ignore[override]
        n_rollout_steps: int,
    ) -> bool:
        """Play the episodes of one update to their end.

        Args:
            env: The training environments.
            callback: Called after each step.
            rollout_buffer: Where they go.
            n_rollout_steps: Fewest environment steps.

        Returns:
            Whether the callback let it come to an end.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        self._progress = 1.0 - self.num_timesteps / max(self._total_timesteps, 1)
        buffer, quota = rollout_buffer, self.episodes_per_update
        buffer.reset()
        if self._carried is not None:
            buffer.take_over(self._carried)
        carries = self.overlap and not self.same_start
        counterfactual = self._prepare(env, buffer)
        seeds: list[int] = []
        while True:
            if not self._play(env, callback, buffer, quota, seeds, counterfactual):
                self._carried = buffer.carry(0) if carries else None
                return False
            flat = self._finished(buffer, range(quota))
            chosen = list(range(quota))
            if self.dynamic_sampling:
                chosen = useful_episodes(flat, self._group_size_now(quota), self._options())
            enough = len(chosen) >= self.episodes_per_update or quota >= _MOST_SAMPLED * self.episodes_per_update
            if enough and int(flat.lengths[chosen].sum()) >= n_rollout_steps:
                break
            quota += self.group_size
        if len(chosen) < quota:
            flat = self._finished(buffer, chosen)
        self._batch, found = make_batch(flat, self._group_size_now(len(chosen)), self._options(), self.device)
        self._carried = buffer.carry(quota) if carries else None
        for key, value in found.items():
            self.logger.record(key, value)
        self.logger.record("rollout/idle_fraction", buffer.idle_fraction)
        if self.advantage == "actions" and not self._n_batches and not self._batch.advantages.any():
            warn_of_equal_actions(self.action_horizon)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _prepare(self, env: VecEnv, buffer: EpisodeBuffer) -> Counterfactual | None:
        """Check once what the options need, and begin episodes in the environments that are at a start."""
        counterfactual = None
        if self.advantage == "actions":
            counterfactual = Counterfactual(env, self.action_horizon, self.reward_function)
            if not self._copies_are_exact:
                self.num_timesteps += counterfactual.check_copies()
                self._copies_are_exact = True
                self._restart(env.reset())
        if self.same_start:
            if self._starts_are_equal is None:
                self._check_starts(env)
            return counterfactual
        assert self._last_episode_starts is not None
        if not self.overlap and not np.all(self._last_episode_starts):
            self._restart(env.reset())
        for i in np.flatnonzero(self._last_episode_starts):
            buffer.begin(int(i), self._limit(self.episodes_per_update))
        return counterfactual

    def _check_starts(self, env: VecEnv) -> None:
        self._starts_are_equal = starts_are_equal(env, int(np.random.randint(2**31)))
        self.num_timesteps += n_checked_steps(env)
        if not self._starts_are_equal:
            warn_of_unequal_starts()

    def _restart(self, obs: Any) -> None:
        self._last_obs = obs
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)

    def _play(
        self,
        env: VecEnv,
        callback: BaseCallback,
        buffer: EpisodeBuffer,
        quota: int,
        seeds: list[int],
        counterfactual: Counterfactual | None,
    ) -> bool:
        """Step until the first `quota` episodes are finished; False where the callback says stop."""
        while not buffer.finished(quota):
            if self.same_start and all(episode.stop is not None for episode in buffer.episodes):
                self._begin_round(env, buffer, quota, seeds)
            if not self._step(env, callback, buffer, 0 if self.same_start else self._limit(quota), counterfactual):
                return False
        return True

    def _limit(self, quota: int) -> int:
        """Return how many episodes may begin: those of this update, and with `overlap` those of the next."""
        return quota + self.overlap * self.episodes_per_update

    def _begin_round(self, env: VecEnv, buffer: EpisodeBuffer, quota: int, seeds: list[int]) -> None:
        """Reset every environment with the seed of the group that its next episode belongs to."""
        first = len(buffer.episodes)
        groups = [(first + i) // self.group_size for i in range(env.num_envs)]
        seeds += [int(np.random.randint(2**31)) for _ in range(len(seeds), groups[-1] + 1)]
        self._restart(reset_with_seeds(env, [seeds[group] for group in groups]))
        for i in range(env.num_envs):
            buffer.begin(i, quota)

    def _step(
        self,
        env: VecEnv,
        callback: BaseCallback,
        buffer: EpisodeBuffer,
        limit: int,
        counterfactual: Counterfactual | None,
    ) -> bool:
        """Step every environment once."""
        step: dict[str, Any] = {"observations": self._last_obs}
        with torch.no_grad():
            obs = obs_as_tensor(self._last_obs, self.device)
            drawn, log_probs = self.policy(obs)
            if counterfactual is not None:
                step["all_log_probs"] = torch.log_softmax(self.policy.raw(obs), dim=1).cpu().numpy()
                step["values"], n_steps = counterfactual.values(self.policy, self._last_obs, self.gamma)
                self.num_timesteps += n_steps
        step |= {"actions": drawn.cpu().numpy(), "log_probs": log_probs.cpu().numpy()}
        new_obs, step["rewards"], dones, infos = env.step(self._within_bounds(step["actions"]))
        self.num_timesteps += env.num_envs
        callback.update_locals(locals())
        going_on = callback.on_step()
        # Also where the callback stops: the episodes may be taken up again, and the environments have moved.
        self._update_info_buffer(infos, dones)
        buffer.add(step, dones, infos, limit)
        self._last_obs, self._last_episode_starts = new_obs, dones
        return going_on

    def _within_bounds(self, actions: NDArray[Any]) -> NDArray[Any]:
        if not isinstance(self.action_space, spaces.Box):
            return actions
        return np.asarray(np.clip(actions, self.action_space.low, self.action_space.high))

    def _finished(self, buffer: EpisodeBuffer, chosen: Sequence[int]) -> Flat:
        flat = buffer.flat(chosen)
        if self.reward_function is not None:
            obs, last = flat.columns["observations"], np.cumsum(flat.lengths) - 1
            following = np.roll(obs, -1, axis=0)
            following[last] = np.stack(flat.last_obs)
            flat.columns["rewards"] = evaluate_rewards(self.reward_function, obs, flat.columns["actions"], following)
        return flat

    def _group_size_now(self, n_episodes: int) -> int:
        """Return the size of a group, or of the whole batch where groups cannot start in the same state."""
        return n_episodes if self._starts_are_equal is False else self.group_size

    def _options(self) -> Options:
        return Options(
            self.advantage, self.scaling, self.weighting, self.truncation, self.alive_peers_only, self.gamma
        )

    # --- updating -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Update the policy on the episodes that were collected last."""
        assert self._batch is not None
        self.policy.set_training_mode(True)
        learning_rate = self.lr_schedule(self._progress)
        update_learning_rate(self.policy.optimizer, learning_rate)
        self.logger.record("train/learning_rate", learning_rate)
        clip_low = self.clip_range(self._progress)
        coefficients = Coefficients(
            clip_low=clip_low,
            clip_high=clip_low if self.clip_range_high is None else self.clip_range_high,
            entropy=FloatSchedule(self.ent_coef)(self._progress),
            kl=self.kl_coef,
        )
        losses: list[Loss] = []
        for _ in range(self.n_epochs):
            going_on = self._train_epoch(self._batch, coefficients, losses)
            self._n_updates += 1
            if not going_on:
                break
        self._n_batches += 1
        self._log(losses, coefficients)
        if self.reference_policy is not None and self._n_batches % self.reference_interval == 0:
            self.reference_policy.load_state_dict(self.policy.state_dict())
        self._batch = None

    def _train_epoch(self, batch: Batch, coefficients: Coefficients, losses: list[Loss]) -> bool:
        """Take a step on every minibatch; False where `target_kl` ends the update."""
        parameters = list(self.policy.parameters())
        for part in batch.minibatches(self.batch_size):
            loss = grpo_loss(self.policy, part, coefficients, self.reference_policy)
            losses.append(Loss(loss.total.detach(), *loss[1:]))
            if self.target_kl is not None and loss.approx_kl > 1.5 * self.target_kl:
                return False
            self.policy.optimizer.zero_grad()
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            self.policy.optimizer.step()
            if isinstance(self.action_space, spaces.Box):
                with torch.no_grad():
                    self.policy.log_std.clamp_(self.log_std_min, self.log_std_max)
        return True

    def _log(self, losses: Sequence[Loss], coefficients: Coefficients) -> None:
        mean = Loss(*(torch.stack(parts).mean().cpu() for parts in zip(*losses, strict=True)))
        self.logger.record("train/loss", mean.total.item())
        self.logger.record("train/policy_gradient_loss", mean.policy_gradient.item())
        self.logger.record("train/entropy_loss", -mean.entropy.item())
        self.logger.record("train/approx_kl", mean.approx_kl.item())
        self.logger.record("train/clip_fraction", mean.clip_fraction.item())
        self.logger.record("train/clip_range", coefficients.clip_low)
        self.logger.record("train/ent_coef", coefficients.entropy)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if self.reference_policy is not None:
            self.logger.record("train/reference_kl", mean.reference_kl.item())
        if isinstance(self.action_space, spaces.Box):
            self.logger.record("train/std", float(self.policy.log_std.detach().exp().mean()))
