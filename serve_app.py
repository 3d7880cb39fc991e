"""The service for Ray Serve: `serve run serve_app:app`, or `serve deploy configs/serve/production.yaml`.

`app` takes its settings from `RL_API_…` variables; `build` also from the `args` of a config file. See docs/serving.md.
"""

from __future__ import annotations

from rlplatform.serve.deployment import build

__all__ = ["app", "build"]

app = build()
