"""A search whose trials train 256 steps, with four evaluations."""

from __future__ import annotations

from typing import Any

from rlplatform.specs.search import SearchSpec
from tests.unit.train.small_specs import small_spec

RATE = "algorithm.learning_rate"


def small_search(run: dict[str, Any] | None = None, **changes: Any) -> SearchSpec:
    """Return a search over PPO's learning rate; `run` replaces parts of its base, `changes` parts of the search."""
    base = small_spec("ppo", budget={"total_timesteps": 256}, evaluation={"final_episodes": 0}).model_dump(mode="json")
    return SearchSpec.model_validate(
        {
            "run": {**base, **(run or {})},
            "space": {RATE: {"type": "loguniform", "low": 1e-5, "high": 1e-2}},
            "budget": {"trials": 6},
            **changes,
        }
    )
