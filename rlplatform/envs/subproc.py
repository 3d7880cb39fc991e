"""The `subproc` backend: worker processes, each stepping its share of the environments.

Stable-Baselines3's SubprocVecEnv starts one process for each environment, and its workers die on Ctrl-C, which would
break the checkpoint that Ctrl-C asks for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from rlplatform.errors import EnvError, EnvWorkerDied

EnvFn = Callable[[], gym.Env[Any, Any]]

_JOIN_TIMEOUT_S = 5.0


class SubprocessVecEnv(VecEnv):
    """Environments split evenly over worker processes, whose steps overlap.

    Args:
        env_fns: What makes the environments, called in the workers.
        n_workers: Processes; at most one for each environment.

    Raises:
        EnvError: If a worker cannot make its environments.
    """

    def __init__(self, env_fns: Sequence[EnvFn], n_workers: int) -> None:
        # A fork of this process, with its torch and Ray threads, could deadlock. The fork server has none; it imports
        # once what all workers need.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "rlplatform.envs.single"])
        self._shares = [list(map(int, share)) for share in np.array_split(np.arange(len(env_fns)), n_workers)]
        self._home = {i: (w, local) for w, share in enumerate(self._shares) for local, i in enumerate(share)}
        self._pipes: list[Connection] = []
        self._processes = []
        for share in self._shares:
            ours, theirs = context.Pipe()
            fns = cloudpickle.dumps([env_fns[i] for i in share])
            process = context.Process(target=_work, args=(theirs, fns), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._closed = False
        try:
            observation_space, action_space = self._receive(range(n_workers))[0]
            super().__init__(len(env_fns), observation_space, action_space)
        except EnvError:
            self.close()
            raise

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options given before."""
        for w, share in enumerate(self._shares):
            self._send(w, "reset", [self._seeds[i] for i in share], [self._options[i] for i in share])
        results = self._receive(range(len(self._pipes)))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, infos in results for info in infos]
        return _join([obs for obs, _ in results])

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step in every worker."""
        for w, share in enumerate(self._shares):
            self._send(w, "step", actions[share[0] : share[-1] + 1])

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for all workers."""
        results = self._receive(range(len(self._pipes)))
        obs, rewards, dones, infos, reset_infos = zip(*results, strict=True)
        self.reset_infos = [info for share in reset_infos for info in share]
        return _join(obs), np.concatenate(rewards), np.concatenate(dones), [info for share in infos for info in share]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment."""
        return self._gather("get_attr", indices, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment."""
        self._gather("set_attr", indices, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment."""
        return self._gather("env_method", indices, method_name, *method_args, **method_kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return whether each environment has a wrapper of this class around it."""
        return self._gather("env_is_wrapped", indices, wrapper_class)

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return a picture of each environment."""
        return self._gather("env_method", None, "render")

    def close(self) -> None:
        """Close the environments and end the workers."""
        if self._closed:
            return
        self._closed = True
        for pipe in self._pipes:
            # A worker that waits for us to receive its last answer finds the pipe closed and ends as well.
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(_JOIN_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()

    def _gather(self, method: str, indices: VecEnvIndices, *args: Any, **kwargs: Any) -> list[Any]:
        wanted = list(self._get_indices(indices))
        local: dict[int, list[int]] = {}
        for i in wanted:
            worker, position = self._home[i]
            local.setdefault(worker, []).append(position)
        for worker, positions in local.items():
            self._send(worker, method, *args, indices=positions, **kwargs)
        answers = self._receive(local)
        results = {
            worker: iter(answer or [None] * len(local[worker])) for worker, answer in zip(local, answers, strict=True)
        }
        return [next(results[self._home[i][0]]) for i in wanted]

    def _send(self, worker: int, method: str, *args: Any, **kwargs: Any) -> None:
        try:
            self._pipes[worker].send((method, args, kwargs))
        except OSError as err:
            raise self._died(worker) from err

    def _receive(self, workers: Iterable[int]) -> list[Any]:
        """Return the answer of each worker; where one is an error, raise it after all have answered."""
        answers = []
        for worker in workers:
            try:
                answers.append(self._pipes[worker].recv())
            except (EOFError, OSError) as err:
                raise self._died(worker) from err
        for error, result in answers:
            if error is not None:
                # Somebody may ask whether an attribute exists: that answer keeps its type.
                raise result if isinstance(result, (AttributeError, EnvError)) else EnvError(error)
        return [result for _, result in answers]

    def _died(self, worker: int) -> EnvWorkerDied:
        self._processes[worker].join(_JOIN_TIMEOUT_S)
        code = self._processes[worker].exitcode
        return EnvWorkerDied(
            f"The environment worker {worker + 1} of {len(self._pipes)} died (exit code {code}). The usual reason is "
            "memory: lower `env.n_workers` or `env.n_envs`. The run goes on from its last checkpoint."
        )


def make_subproc_vec_env(env_fns: Sequence[EnvFn], n_workers: int) -> SubprocessVecEnv:
    """Start the workers and make the environments in them."""
    return SubprocessVecEnv(env_fns, n_workers)


def _work(pipe: Connection, env_fns: bytes) -> None:
    """Serve one share of the environments until the other end of the pipe is gone."""
    # Ctrl-C reaches the whole process group; only the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    venv: DummyVecEnv | None = None
    try:
        venv = _answer(pipe, lambda: DummyVecEnv(cloudpickle.loads(env_fns)))
        while venv is not None and (request := pipe.recv()) is not None:
            method, args, kwargs = request
            _answer(pipe, lambda: _handle(venv, method, args, kwargs))  # noqa: B023
    except (EOFError, OSError):
        pass  # The driver is gone, and with it the reason to be.
    finally:
        if venv is not None:
            venv.close()


def _answer(pipe: Connection, work: Callable[[], Any]) -> Any:
    """Do something and send what came of it; an environment may raise anything, and the driver must hear of it."""
    try:
        result = work()
        # Sent in here: what cannot be pickled is the environment's error as well.
        pipe.send(
            (None, (result.observation_space, result.action_space) if isinstance(result, DummyVecEnv) else result)
        )
    except Exception as err:
        known = isinstance(err, (AttributeError, EnvError))
        pipe.send((f"An environment raised {type(err).__name__}: {err}", err if known else None))
        return None
    return result


def _handle(venv: DummyVecEnv, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if method == "step":
        return (*venv.step(*args), venv.reset_infos)
    if method == "reset":
        venv._seeds, venv._options = args
        return venv.reset(), venv.reset_infos
    return getattr(venv, method)(*args, **kwargs)


def _join(parts: Sequence[Any]) -> VecEnvObs:
    if isinstance(parts[0], dict):
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)
