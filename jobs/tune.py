"""Search a space of specs on the cluster that runs this job.

    ray job submit --working-dir . -- python jobs/tune.py SEARCH.yaml [options]

The arguments are those of ``rlplatform tune``. Results go to RLPLATFORM_HOME; see docs/tune.md.
"""

from __future__ import annotations

import sys

from rlplatform.cli import main
from rlplatform.cluster.job import prepare_job

if __name__ == "__main__":
    prepare_job()
    sys.exit(main(["tune", *sys.argv[1:]]))
