"""A search in a process of its own, for tests that kill it: `python -m tests.integration.search_driver SPEC HOME`."""

from __future__ import annotations

import sys
from pathlib import Path

from rlplatform.cluster.runner import RayOptions
from rlplatform.specs.search_load import load_search_spec
from rlplatform.tune.run import run_search

if __name__ == "__main__":
    spec, home = sys.argv[1:]
    run_search(load_search_spec(Path(spec)), Path(home), RayOptions(limit=1))
