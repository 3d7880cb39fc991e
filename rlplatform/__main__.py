"""`python -m rlplatform` is `rlplatform`."""

from __future__ import annotations

from rlplatform.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
