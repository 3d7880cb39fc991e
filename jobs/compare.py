"""Compare specs over seeds on the cluster that runs this job.

    ray job submit --working-dir . -- python jobs/compare.py A.yaml B.yaml --seeds 1-5 [options]

The arguments are those of ``rlplatform compare``. Results go to RLPLATFORM_HOME; see docs/tune.md.
"""

from __future__ import annotations

import sys

from rlplatform.cli import main
from rlplatform.cluster.job import prepare_job

if __name__ == "__main__":
    prepare_job()
    sys.exit(main(["compare", *sys.argv[1:]]))
