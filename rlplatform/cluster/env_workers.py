"""The `ray` backend: an SB3 VecEnv whose environments live in Ray actors, several in each.

One step is one call to each worker, over a line of its own: the workers step at the same time, the environments of one
worker one after the other. In a placement group of several bundles (a RunActor's) worker `i` sits in bundle `i + 1`,
booked with its driver.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from rlplatform.cluster.env_line import Line
from rlplatform.cluster.env_worker import TRUNCATED_KEY, RemoteEnvWorker, StepBatch, join
from rlplatform.cluster.session import ensure_ray
from rlplatform.errors import EnvError, EnvWorkerDied, ResourceError, RlPlatformError
from rlplatform.logs import get_logger

START_TIMEOUT_S = 120.0
"""How long workers may take to start before the cluster is called too small."""
DEATH_NOTICE_S = 30.0
"""How long Ray may take to say why a worker is gone."""

_log = get_logger(__name__)


def make_ray_vec_env(env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], n_workers: int) -> VecEnv:
    """Build the environments in Ray actors, starting a local Ray if there is none.

    Args:
        env_fns: One function for each environment; they are pickled.
        n_workers: Actors; environments are split evenly. More than there are environments means one for each.

    Raises:
        ResourceError: The cluster has too few free CPUs: each worker books one.
        EnvError: An environment cannot be made.
    """
    ensure_ray()
    return RayVecEnv(env_fns, n_workers)


def split(n_envs: int, n_workers: int) -> tuple[range, ...]:
    """Return the environments of each worker: consecutive, and differing by at most one in number."""
    n_workers = min(n_envs, n_workers)
    bounds = [worker * n_envs // n_workers for worker in range(n_workers + 1)]
    return tuple(range(low, high) for low, high in pairwise(bounds))


class RayVecEnv(VecEnv):
    """Environments in Ray actors, to SB3 the same as DummyVecEnv."""

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], n_workers: int) -> None:
        """Start the workers and wait until their environments stand; see `make_ray_vec_env`."""
        self._shares = split(len(env_fns), n_workers)
        self._home = {env: (worker, env - share.start) for worker, share in enumerate(self._shares) for env in share}
        self._workers = [
            RemoteEnvWorker.options(**_bundle(worker)).remote([env_fns[env] for env in share])
            for worker, share in enumerate(self._shares)
        ]
        self._lines: list[Line] = []
        self._serving: list[ray.ObjectRef[None]] = []
        self._closed = False
        try:
            self._connect()
            observation_space, action_space, self.metadata = self._ask_all("spaces")[0]
        except RlPlatformError:
            self.close()
            raise
        super().__init__(len(env_fns), observation_space, action_space)

    # --- stepping -----------------------------------------------------------------------------------------------------

    def reset(self) -> VecEnvObs:
        """Reset every environment and return the observations."""
        answers = self._ask(
            {
                worker: ("reset", [self._seeds[env] for env in share], [self._options[env] for env in share])
                for worker, share in enumerate(self._shares)
            }
        )
        self._reset_seeds()
        self._reset_options()
        for share, (_, infos) in zip(self._shares, answers, strict=True):
            for index, env in enumerate(share):
                self.reset_infos[env] = infos.get(index, {})
        joined: VecEnvObs = join([observations for observations, _ in answers])
        return joined

    def step_async(self, actions: NDArray[Any]) -> None:
        """Send each worker its actions; all of them step at the same time."""
        actions = np.asarray(actions)
        for worker, share in enumerate(self._shares):
            self._send(worker, "step", actions[share.start : share.stop])

    def step_wait(self) -> VecEnvStepReturn:
        """Return observations, rewards, dones and infos of the step that was sent."""
        batches: list[StepBatch] = self._receive(range(len(self._lines)))
        infos: list[dict[str, Any]] = []
        for share, batch in zip(self._shares, batches, strict=True):
            infos += ({TRUNCATED_KEY: False} | batch.infos.get(index, {}) for index in range(len(share)))
            for index, info in batch.reset_infos.items():
                self.reset_infos[share.start + index] = info
        rewards = np.concatenate([batch.rewards for batch in batches])
        dones = np.concatenate([batch.dones for batch in batches])
        return join([batch.observations for batch in batches]), rewards, dones, infos

    def close(self) -> None:
        """Close the environments and end their actors."""
        if self._closed:
            return
        self._closed = True
        for line in self._lines:
            line.close()
        if ray.is_initialized():
            if self._serving:
                ray.wait(self._serving, num_returns=len(self._serving), timeout=10)
            for worker in self._workers:
                ray.kill(worker)

    # --- reaching into the environments -------------------------------------------------------------------------------

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of environments; return one result for each."""
        return self._each(indices, "call", method_name, method_args, method_kwargs)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of environments, one value for each."""
        return self._each(indices, "get", attr_name)

    def has_attr(self, attr_name: str) -> bool:
        """Return whether every environment has an attribute."""
        return all(self._ask_all("has", attr_name))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of environments."""
        self._ask(
            {
                worker: ("set", [self._home[env][1] for env in envs], attr_name, value)
                for worker, envs in self._by_worker(indices).items()
            }
        )

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return for each environment whether it is wrapped in a class."""
        return self._each(indices, "is_wrapped", wrapper_class)

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return one picture of each environment; Nones unless they render to arrays."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode!r}; pictures need 'rgb_array'.", stacklevel=2)
            return [None] * self.num_envs
        return [picture for part in self._ask_all("render") for picture in part]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _by_worker(self, indices: VecEnvIndices) -> dict[int, list[int]]:
        """Return the chosen environments, grouped by worker."""
        groups: dict[int, list[int]] = {}
        for env in self._get_indices(indices):
            groups.setdefault(self._home[env][0], []).append(env)
        return groups

    def _each(self, indices: VecEnvIndices, method: str, *args: Any) -> list[Any]:
        """Call a worker method that returns one value for each environment; give them in the order of `indices`."""
        indices = list(self._get_indices(indices))
        groups = self._by_worker(indices)
        answers = self._ask(
            {worker: (method, [self._home[env][1] for env in envs], *args) for worker, envs in groups.items()}
        )
        values = {
            env: value
            for envs, part in zip(groups.values(), answers, strict=True)
            for env, value in zip(envs, part, strict=True)
        }
        return [values[env] for env in indices]

    def _connect(self) -> None:
        """Open a line to every worker once its environments stand."""
        key = secrets.token_bytes(32)
        answers = [worker.listen.remote(key) for worker in self._workers]
        _, waiting = ray.wait(answers, num_returns=len(answers), timeout=START_TIMEOUT_S)
        if waiting:
            raise ResourceError(
                f"{len(waiting)} of {len(answers)} environment workers did not start within {START_TIMEOUT_S:g} s. "
                "Each books 1 CPU: set `env.n_workers` lower, or add nodes."
            )
        try:
            addresses = ray.get(answers)
        except ray.exceptions.RayTaskError as error:
            raise _told(error.cause) from error
        except ray.exceptions.RayActorError as error:
            raise _not_made(error) from error
        self._serving = [worker.serve.remote() for worker in self._workers]
        for host, port in addresses:
            try:
                self._lines.append(Line((host, port), key))
            except OSError as error:
                raise ResourceError(
                    f"The environment worker at {host}:{port} cannot be reached: {error}. "
                    "The nodes of a cluster must reach one another on every port."
                ) from error

    def _ask_all(self, method: str, *args: Any) -> list[Any]:
        return self._ask(dict.fromkeys(range(len(self._lines)), (method, *args)))

    def _ask(self, calls: Mapping[int, tuple[Any, ...]]) -> list[Any]:
        """Call one method of each of some workers, all at the same time, and return their answers in order."""
        for worker, call in calls.items():
            self._send(worker, *call)
        return self._receive(calls)

    def _send(self, worker: int, method: str, *args: Any) -> None:
        try:
            self._lines[worker].send(method, *args)
        except OSError as error:
            raise self._death(worker) from error

    def _receive(self, workers: Iterable[int]) -> list[Any]:
        """Return the workers' answers, with what went wrong told in words; every answer is taken before that."""
        answers = []
        for worker in workers:
            try:
                answers.append(self._lines[worker].receive())
            except (EOFError, OSError) as error:
                raise self._death(worker) from error
        for answer in answers:
            if answer.error is not None:
                raise _told(answer.error) from answer.error
        return [answer.value for answer in answers]

    def _death(self, worker: int) -> RlPlatformError:
        """Say which worker is gone, and why, as far as Ray knows."""
        reason = "its connection was lost."
        try:
            ray.get(self._serving[worker], timeout=DEATH_NOTICE_S)
        except ray.exceptions.RayActorError as error:
            reason = _last_line(str(error))
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayTaskError):
            _log.warning("environment worker %d hung up, and Ray does not say why", worker + 1)
        share = self._shares[worker]
        return EnvWorkerDied(
            f"Environment worker {worker + 1} of {len(self._workers)} (environments {share.start} to {share.stop - 1}) "
            f"died: {reason} "
            "The run goes on from its last checkpoint; look at the node's memory if this comes again."
        )


def _not_made(error: ray.exceptions.RayActorError) -> RlPlatformError:
    """Say why a worker's environments could not be made."""
    cause = getattr(error, "cause", None) or getattr(error.__cause__, "cause", None)
    return _told(cause) if cause is not None else EnvError(_last_line(str(error)))


def _bundle(worker: int) -> dict[str, Any]:
    """Return the scheduling options that put a worker into its place of the run's placement group, if there is one."""
    group = ray.util.get_current_placement_group()
    if group is None or group.bundle_count == 1:
        return {}
    index = 1 + worker % (group.bundle_count - 1)
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)}


def _told(cause: BaseException | None) -> RlPlatformError:
    """Return the environment's own error in our words."""
    if isinstance(cause, RlPlatformError):
        return cause
    return EnvError(f"An environment raised {type(cause).__name__}: {cause}. Mend the environment.")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given."
