"""What a lunar lander is doing, in `info`: where it is, how the landing went, and what the reward is made of."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
from gymnasium.envs.box2d.lunar_lander import FPS, LEG_DOWN, SCALE, VIEWPORT_H, VIEWPORT_W, LunarLander

from rlplatform.errors import EnvError

Outcome = Literal["successful", "crashed", "timeout"]

SOFT_SPEED = 0.1
SOFT_ANGLE_RAD = 0.2

_HALF_WIDTH = VIEWPORT_W / SCALE / 2
_HALF_HEIGHT = VIEWPORT_H / SCALE / 2


@dataclass
class LandingStats:
    """One episode so far, in the observation's units."""

    steps: int = 0
    main_engine: float = 0.0
    """Main engine power, summed over steps."""
    side_engine: float = 0.0
    first_contact_step: int | None = None
    """When a leg first touched the ground."""
    first_contact_speed: float | None = None
    on_pad: bool = False
    """Both legs on the ground, between the flags."""


class LandingMonitor(gym.Wrapper[Any, Any, Any, Any]):
    """Add ``lunar_lander`` and ``reward_components`` to every step's info.

    ``info["reward_components"]`` sums to the reward. ``info["lunar_lander"]["landing_outcome"]`` is None until the
    episode ends; then ``successful`` is at rest, or standing still on the pad when time runs out; ``crashed`` is a body
    that hit the ground or flew off; and ``info["is_success"]`` says so to Stable-Baselines3.

    Args:
        env: A LunarLander.

    Raises:
        EnvError: If it is something else.

    Source: the reward of Gymnasium 1.4's LunarLander-v3, `LunarLander.step`, taken apart.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        if not isinstance(env.unwrapped, LunarLander):
            raise EnvError(f"The wrapper 'landing_monitor' needs a LunarLander, got {type(env.unwrapped).__name__}.")
        self._lander_env: Any = env.unwrapped
        self._potentials: dict[str, float] = {}
        self._stats = LandingStats()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._stats = LandingStats()
        self._potentials = _potentials(_state(self._lander_env))
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and describe the step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        state = _state(self._lander_env)
        main, side = _engine_powers(action, self._lander_env.continuous)
        speed = math.hypot(state[2], state[3])
        self._count(state, main, side, speed)
        info["reward_components"] = self._components(state, main, side, terminated, float(reward))
        outcome = self._outcome(state, speed, terminated, truncated)
        if outcome is not None:
            info["is_success"] = outcome == "successful"
        info["lunar_lander"] = {
            "position": (state[0], state[1]),
            "velocity": (state[2], state[3]),
            "angle": state[4],
            "angular_velocity": state[5],
            "leg_contact": (bool(state[6]), bool(state[7])),
            "distance_from_target": math.hypot(state[0], state[1]),
            "is_landing": bool(state[6] or state[7]) and outcome is None,
            "landing_outcome": outcome,
            "landing_stats": asdict(self._stats),
        }
        return obs, reward, terminated, truncated, info

    def _count(self, state: list[float], main: float, side: float, speed: float) -> None:
        stats = self._stats
        stats.steps += 1
        stats.main_engine += main
        stats.side_engine += side
        if stats.first_contact_step is None and (state[6] or state[7]):
            stats.first_contact_step, stats.first_contact_speed = stats.steps, speed
        pad_half_width = (self._lander_env.helipad_x2 - self._lander_env.helipad_x1) / 2 / _HALF_WIDTH
        stats.on_pad = bool(state[6] and state[7]) and abs(state[0]) <= pad_half_width

    def _components(
        self, state: list[float], main: float, side: float, terminated: bool, reward: float
    ) -> dict[str, float]:
        before, self._potentials = self._potentials, _potentials(state)
        if terminated:
            # The last step's reward is -100 or +100 and nothing else.
            return {**dict.fromkeys(before, 0.0), "main_engine": 0.0, "side_engine": 0.0, "outcome": reward}
        shaping = {name: value - before[name] for name, value in self._potentials.items()}
        return {**shaping, "main_engine": -0.30 * main, "side_engine": -0.03 * side, "outcome": 0.0}

    def _outcome(self, state: list[float], speed: float, terminated: bool, truncated: bool) -> Outcome | None:
        if terminated:
            return "crashed" if self._lander_env.lander.awake else "successful"
        if not truncated:
            return None
        stands = self._stats.on_pad and speed <= SOFT_SPEED and abs(state[4]) <= SOFT_ANGLE_RAD
        return "successful" if stands else "timeout"


def _state(env: Any) -> list[float]:
    """Return what the observation is made of, before it is rounded to float32."""
    position, velocity = env.lander.position, env.lander.linearVelocity
    return [
        (position.x - _HALF_WIDTH) / _HALF_WIDTH,
        (position.y - (env.helipad_y + LEG_DOWN / SCALE)) / _HALF_HEIGHT,
        velocity.x * _HALF_WIDTH / FPS,
        velocity.y * _HALF_HEIGHT / FPS,
        env.lander.angle,
        20.0 * env.lander.angularVelocity / FPS,
        float(env.legs[0].ground_contact),
        float(env.legs[1].ground_contact),
    ]


def _potentials(state: list[float]) -> dict[str, float]:
    """Return the parts of the shaping potential; the reward is their change."""
    return {
        "distance": -100.0 * math.hypot(state[0], state[1]),
        "speed": -100.0 * math.hypot(state[2], state[3]),
        "angle": -100.0 * abs(state[4]),
        "leg_contact": 10.0 * (state[6] + state[7]),
    }


def _engine_powers(action: Any, continuous: bool) -> tuple[float, float]:
    """Return the main and the side engine's power, each 0 or in [0.5, 1]."""
    if not continuous:
        return float(action == 2), float(action in (1, 3))
    main, side = (min(max(float(throttle), -1.0), 1.0) for throttle in action)
    return (main + 1.0) * 0.5 if main > 0.0 else 0.0, abs(side) if abs(side) > 0.5 else 0.0
