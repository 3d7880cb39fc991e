"""What is different inside a Ray job: one stands in an unpacked copy of the code, which is removed after the job."""

from __future__ import annotations

import os
from pathlib import Path

from rlplatform import names

JOB_HOME = Path("~/rlplatform-results")
"""RLPLATFORM_HOME of a job to which nobody gave one."""
JOB_STOP_WAIT_S = 120
"""Seconds that a job which is stopped gets to stop its runs with checkpoints. Ray's own default is 3."""
JOB_VARIABLES = frozenset({"RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONPATH", "RAY_RUNTIME_ENV_HOOK"})
"""What tells a process of a job's code; the RunManager, which outlives the job, must not get it."""


def prepare_job() -> None:
    """Make sure that results outlive the job: without RLPLATFORM_HOME they go to `~/rlplatform-results` on its node.

    A relative RLPLATFORM_HOME would lie inside the unpacked code, so it is taken from the home folder too.
    """
    wanted = Path(os.environ.get(names.HOME_ENV_VAR) or JOB_HOME).expanduser()
    os.environ[names.HOME_ENV_VAR] = str(Path.home() / wanted)
