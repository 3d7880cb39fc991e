"""Run records for tests of reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rlplatform.artifacts.provenance import machine
from rlplatform.artifacts.run_record import Attempt, RunProgress, RunRecord

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def record(seed: int = 0, *, final: float | None = None, best: float | None = None, **fields: Any) -> RunRecord:
    """Return the record of a run that trained for 90 seconds; with `final` it has a result."""
    result = {
        "step": 1_024,
        "reason": "the budget's steps are done",
        "best_return": best,
        "final": {"n_episodes": 100, "return_mean": final, "return_ci_low": final - 1, "return_ci_high": final + 1},
    } if final is not None else None  # fmt: skip
    values: dict[str, Any] = {
        "id": f"cartpole-s{seed}-20261121-120000-00{seed:02}",
        "name": "cartpole",
        "algorithm": "ppo",
        "env": "CartPole-v1",
        "seed": seed,
        "state": "running" if final is None else "completed",
        "created_at": NOON,
        "spec_digest": "0" * 64,
        "env_backend": "sync",
        "env_state": "replay",
        "progress": RunProgress(step=512, total=1_000, updated_at=NOON + timedelta(seconds=90)),
        "result": result,
        "attempts": (Attempt(started_at=NOON, start_step=0, machine=machine(), command="rlplatform train"),),
        "command": "rlplatform train",
        "machine": machine(),
        "versions": {},
    }
    return RunRecord(**values | fields)
