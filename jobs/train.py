"""Train on the cluster that runs this job.

    ray job submit --working-dir . -- python jobs/train.py SPEC.yaml [options]

The arguments are those of ``rlplatform train``. Results go to RLPLATFORM_HOME; see docs/ray.md.
"""

from __future__ import annotations

import sys

from rlplatform.cli import main
from rlplatform.cluster.job import prepare_job

if __name__ == "__main__":
    prepare_job()
    sys.exit(main(["train", *sys.argv[1:]]))
