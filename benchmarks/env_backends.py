"""Measures the steps per second of every backend and writes docs/results/env_backends.md.

    python -m benchmarks.env_backends                     all backends against DummyVecEnv, then the scaling of `ray`
    python -m benchmarks.env_backends --rounds 3 --no-ray
    python -m benchmarks.env_backends --only-ray          the scaling of `ray` again, on a page of its own

Compared is what a training loop pays: `VecEnv.step` with everything that Stable-Baselines3 gets from it. A round runs
DummyVecEnv and then the backend on the same actions; the ratio is of that pair, so that what else the machine does
concerns both. Environments of `sync`, `subproc` and `ray` also record what exact resume needs; DummyVecEnv's do not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_vec_env as make_bare_vec_env
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform.cluster.session import ray_session
from rlplatform.envs.make import make_vec_env
from rlplatform.specs.run import Backend, EnvSpec

PAGE = ROOT / "docs" / "results" / "env_backends.md"
RAY_PAGE = PAGE.with_name("ray_backend.md")
CASES: tuple[tuple[str, int, tuple[Backend, ...]], ...] = (
    ("CartPole-v1", 1, ("sync", "vector")),
    ("CartPole-v1", 4, ("sync", "vector")),
    ("CartPole-v1", 8, ("sync", "vector", "envpool", "subproc")),
    ("CartPole-v1", 64, ("sync", "vector", "envpool", "subproc")),
    ("LunarLander-v3", 16, ("sync", "envpool", "subproc")),
)
N_WORKERS = 2
ROUND_S = 0.4
WARM_UP_STEPS = 200
SLEEP_S = 0.010
SLOW_CASES = ((1, 4), (2, 4), (4, 4), (8, 4), (2, 1), (4, 1))
SLOW_STEPS = 20
SLOW_ROUNDS = 10


class SlowEnv(gym.Env[Any, Any]):
    """An environment whose step takes 10 ms without using the CPU, as a simulator behind a socket does."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(SLEEP_S)
        return np.zeros(4, np.float32), 0.0, False, False, {}


@dataclass(frozen=True)
class Comparison:
    """One backend beside DummyVecEnv, over all rounds."""

    env_id: str
    n_envs: int
    backend: str
    steps_per_s: float
    dummy_steps_per_s: float
    ratios: tuple[float, ...]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--only-ray", action="store_true")
    options = parser.parse_args()
    body = [] if options.only_ray else [_backends_table(options.rounds)]
    if not options.no_ray:
        with ray_session(num_cpus=max(workers for workers, _ in SLOW_CASES)):
            body.append(_ray_table())
    body.append(f"{describe_machine()} Load average while measuring: {os.getloadavg()[1]:.1f}.")
    command = "python -m benchmarks.env_backends"
    if options.only_ray:
        write_page(RAY_PAGE, "The `ray` backend", f"{command} --only-ray", "\n\n".join(body))
    else:
        write_page(PAGE, "Environment backends", command, "\n\n".join(body))


def compare(env_id: str, n_envs: int, backend: Backend, n_rounds: int) -> Comparison:
    """Measure a backend and DummyVecEnv in turns."""
    workers = N_WORKERS if backend in ("subproc", "envpool") else None
    spec = EnvSpec(id=env_id, n_envs=n_envs, backend=backend, n_workers=workers)
    # By default it asks for pictures, for which LunarLander simulates exhaust: that would flatter us.
    dummy = make_bare_vec_env(env_id, n_envs=n_envs, seed=0, env_kwargs={"render_mode": None})
    with contextlib.closing(make_vec_env(spec, seed=0)) as ours, contextlib.closing(dummy):
        rates = [(_rate(dummy), _rate(ours)) for _ in range(n_rounds)]
    return Comparison(
        env_id, n_envs, backend,
        steps_per_s=statistics.median(rate for _, rate in rates),
        dummy_steps_per_s=statistics.median(rate for rate, _ in rates),
        ratios=tuple(rate / dummy_rate for dummy_rate, rate in rates),
    )  # fmt: skip


def _rate(venv: VecEnv) -> float:
    """Return environment steps per second over one round, after a warm-up."""
    rng = np.random.default_rng(0)
    assert isinstance(venv.action_space, gym.spaces.Discrete)
    actions = rng.integers(venv.action_space.n, size=(1024, venv.num_envs))
    venv.reset()
    for action in actions[:WARM_UP_STEPS]:
        venv.step(action)
    n_steps, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < ROUND_S:
        for action in actions[n_steps % 1024 :][:16]:
            venv.step(action)
        n_steps += 16
    return n_steps * venv.num_envs / elapsed


def _backends_table(n_rounds: int) -> str:
    rows = [
        "Steps per second (median of rounds) and the ratio to Stable-Baselines3's DummyVecEnv on the same actions",
        f"(median of {n_rounds} paired rounds, and their range). `subproc` and `envpool` have {N_WORKERS} workers.",
        "",
        "| environment | n_envs | backend | steps/s | DummyVecEnv | ratio | range |",
        "|---|---|---|---|---|---|---|",
    ]
    for env_id, n_envs, backends in CASES:
        for backend in backends:
            result = compare(env_id, n_envs, backend, n_rounds)
            ratios = result.ratios
            rows.append(
                f"| {env_id} | {n_envs} | {backend} | {result.steps_per_s:,.0f} | {result.dummy_steps_per_s:,.0f} | "
                f"**{statistics.median(ratios):.2f}** | {min(ratios):.2f} to {max(ratios):.2f} |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows)


def _ray_table() -> str:
    rows = [
        f"The `ray` backend on environments whose step sleeps {SLEEP_S * 1e3:.0f} ms, against one process that steps",
        f"them one after the other: the best of {SLOW_ROUNDS} rounds of {SLOW_STEPS} steps, as what else the machine",
        "does can only slow a round down. A step costs the driver one call to each worker.",
        "",
        "| workers | environments each | steps/s | times one process | share of ideal |",
        "|---|---|---|---|---|",
    ]
    spec = EnvSpec(id="benchmarks.env_backends:SlowEnv")
    with contextlib.closing(make_vec_env(spec, seed=0)) as venv:
        one_process = _slow_rate(venv)
    rows.append(f"| this process | | {one_process:,.1f} | 1.00 | |")
    for n_workers, n_envs_each in SLOW_CASES:
        update = {"backend": "ray", "n_workers": n_workers, "n_envs": n_workers * n_envs_each}
        with contextlib.closing(make_vec_env(spec.model_copy(update=update), seed=0)) as venv:
            rate = _slow_rate(venv)
        speedup = rate / one_process
        rows.append(f"| {n_workers} | {n_envs_each} | {rate:,.1f} | {speedup:.2f} | **{speedup / n_workers:.2f}** |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def _slow_rate(venv: VecEnv) -> float:
    actions = np.zeros(venv.num_envs, dtype=np.int64)
    venv.reset()
    for _ in range(5):
        venv.step(actions)
    rates = []
    for _ in range(SLOW_ROUNDS):
        begin = time.perf_counter()
        for _ in range(SLOW_STEPS):
            venv.step(actions)
        rates.append(SLOW_STEPS * venv.num_envs / (time.perf_counter() - begin))
    return max(rates)


if __name__ == "__main__":
    main()
