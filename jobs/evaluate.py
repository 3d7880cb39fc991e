"""Evaluate a run inside a Ray job.

    ray job submit --working-dir . -- python jobs/evaluate.py RUN [options]

The arguments are those of ``rlplatform evaluate``. Runs are looked up in RLPLATFORM_HOME; see docs/ray.md.
"""

from __future__ import annotations

import sys

from rlplatform.cli import main
from rlplatform.cluster.job import prepare_job

if __name__ == "__main__":
    prepare_job()
    sys.exit(main(["evaluate", *sys.argv[1:]]))
