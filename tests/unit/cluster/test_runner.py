"""The front that programs use, as far as that goes without Ray."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlplatform.cluster import runner
from rlplatform.cluster.runner import RayOptions, run_on_ray
from rlplatform.cluster.session import RaySession
from rlplatform.errors import ResourceError
from rlplatform.train.progress import Progress


def test_runs_cannot_outlive_a_ray_that_was_started_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextlib.contextmanager
    def own_ray(*_: Any, **__: Any) -> Iterator[RaySession]:
        yield RaySession("127.0.0.1:1", started=True)

    monkeypatch.setattr(runner, "ray_session", own_ray)
    with pytest.raises(ResourceError, match="detached only on a cluster"):
        run_on_ray([], tmp_path, RayOptions(detach=True))


def test_signals_are_counted_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with runner.catch_interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (interrupts.count, interrupts.name) == (1, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_takes_what_it_knows_of_a_status() -> None:
    status = {"run_id": "r", "state": "queued", "step": 5, "total_timesteps": 9, "reason": "it waits", "new": 1}
    assert runner._progress(status) == Progress("r", "queued", 5, 9)
