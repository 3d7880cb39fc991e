"""Measures how fast GRPO trains beside Stable-Baselines3's PPO and writes docs/results/grpo_speed.md.

    python -m benchmarks.grpo_speed --rounds 5

Both have the same network (PPO a critic besides), the same environments, minibatches of 256 and 4 epochs. A round
trains one and then the other from scratch, so that what else the machine does concerns both; the first is a warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform.algos.grpo.algorithm import GRPO

PAGE = ROOT / "docs" / "results" / "grpo_speed.md"
CASES = {"CartPole-v1": 60_000, "Acrobot-v1": 60_000, "Pendulum-v1": 60_000, "LunarLander-v3": 60_000}
"""Environment and steps of one training."""
N_ENVS = 16
GROUP_SIZE = 16
ROLLOUT_STEPS = 256


def main() -> None:
    """Measure every case and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(env_id, steps, arguments.rounds) for env_id, steps in CASES.items()]
    write_page(
        PAGE,
        "GRPO's speed beside PPO's",
        f"python -m benchmarks.grpo_speed --rounds {arguments.rounds}",
        f"""
Environment steps per CPU second, training included (medians of {arguments.rounds} rounds), and the ratio within each
round. Both: {N_ENVS} environments in one process (`DummyVecEnv`), the same network, minibatches of 256, 4 epochs, one
torch thread. PPO collects {ROLLOUT_STEPS} steps of each environment, GRPO {GROUP_SIZE} episodes; it has no critic to
train or to evaluate.

| Environment | Steps | PPO, steps/s | GRPO, steps/s | Ratio, median | Range |
|---|---:|---:|---:|---:|---|
{chr(10).join(rows)}

{describe_machine()}
""",
    )


def measure(env_id: str, steps: int, n_rounds: int) -> str:
    """Return the row of one environment."""
    pairs = [(_rate(PPO, env_id, steps, seed), _rate(GRPO, env_id, steps, seed)) for seed in range(n_rounds + 1)][1:]
    ratios = [grpo / ppo for ppo, grpo in pairs]
    row = (
        f"| {env_id} | {steps:,} | {statistics.median(ppo for ppo, _ in pairs):,.0f} | "
        f"{statistics.median(grpo for _, grpo in pairs):,.0f} | **{statistics.median(ratios):.2f}** | "
        f"{min(ratios):.2f} to {max(ratios):.2f} |"
    )
    print(row, flush=True)
    return row


def _rate(algorithm: type[BaseAlgorithm], env_id: str, steps: int, seed: int) -> float:
    """Return environment steps per CPU second of one training."""
    # By default it asks for pictures, for which LunarLander simulates exhaust.
    envs = make_vec_env(env_id, n_envs=N_ENVS, seed=seed, env_kwargs={"render_mode": None})
    options: dict[str, Any] = {"batch_size": 256, "n_epochs": 4, "seed": seed, "device": "cpu"}
    options |= {"n_steps": ROLLOUT_STEPS} if algorithm is PPO else {"group_size": GROUP_SIZE}
    model = algorithm("MlpPolicy", envs, **options)
    began = time.process_time()
    model.learn(steps)
    seconds = time.process_time() - began
    envs.close()
    return model.num_timesteps / seconds


if __name__ == "__main__":
    main()
