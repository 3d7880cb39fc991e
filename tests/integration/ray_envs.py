"""Environments of the integration tests: they break, wait for one another, or end their process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class PlainEnv(gym.Env[np.ndarray, np.int64]):
    """Does nothing, forever; the others differ in their step."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(2, np.float32), 0.0, False, False, {}


class BreakingEnv(PlainEnv):
    """Raises after 200 steps."""

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.steps >= 200:
            raise OSError("the sensor is broken")
        return super().step(action)


class MeetingEnv(PlainEnv):
    """Steps only while environments in other processes step too."""

    def __init__(self, folder: Path, guests: int) -> None:
        super().__init__()
        self.folder, self.guests = folder, guests

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        (self.folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 30
        while len(list(self.folder.iterdir())) < self.guests:
            if time.monotonic() > deadline:
                raise TimeoutError("nobody came")
            time.sleep(0.01)
        return super().step(action)


class DyingEnv(PlainEnv):
    """Ends its process when action 1 is taken."""

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if action == 1:
            os._exit(1)
        return super().step(action)


class DyingOnceEnv(PlainEnv):
    """Ends its process at step 100, unless a file says that this has happened, or it is the process to spare."""

    def __init__(self, mark: str, spare_pid: int) -> None:
        super().__init__()
        self.mark, self.spare_pid = Path(mark), spare_pid

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.steps == 100 and os.getpid() != self.spare_pid and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return super().step(action)


class PacedCartPole(CartPoleEnv):
    """CartPole that sleeps before each step until a file exists, so that a run lasts as long as a test needs it."""

    def __init__(self, until: str, pace_s: float = 0.02) -> None:
        super().__init__()
        self.until, self.pace_s = Path(until), pace_s

    def step(self, action: Any) -> Any:
        if not self.until.exists():
            time.sleep(self.pace_s)
        return super().step(action)  # type: ignore[no-untyped-call]
