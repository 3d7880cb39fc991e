"""rlplatform: train Stable-Baselines3 policies on Ray from one YAML file, resume them exactly, publish them as ONNX.

The public names load when they are first used, so that `import rlplatform` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlplatform.artifacts.run_dir import RunDir as RunDir
    from rlplatform.errors import RlPlatformError as RlPlatformError
    from rlplatform.policy.runtime import PolicyRuntime as PolicyRuntime
    from rlplatform.specs.load import load_run_spec as load_run_spec
    from rlplatform.specs.run import RunSpec as RunSpec
    from rlplatform.train.evaluate import EvalResult as EvalResult
    from rlplatform.train.evaluate import evaluate as evaluate
    from rlplatform.train.trainer import RunResult as RunResult
    from rlplatform.train.trainer import Trainer as Trainer

_MODULES = {
    "EvalResult": "rlplatform.train.evaluate",
    "PolicyRuntime": "rlplatform.policy.runtime",
    "RlPlatformError": "rlplatform.errors",
    "RunDir": "rlplatform.artifacts.run_dir",
    "RunResult": "rlplatform.train.trainer",
    "RunSpec": "rlplatform.specs.run",
    "Trainer": "rlplatform.train.trainer",
    "evaluate": "rlplatform.train.evaluate",
    "load_run_spec": "rlplatform.specs.load",
}

__all__ = [
    "EvalResult",
    "PolicyRuntime",
    "RlPlatformError",
    "RunDir",
    "RunResult",
    "RunSpec",
    "Trainer",
    "__version__",
    "evaluate",
    "load_run_spec",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rlplatform")
    if name not in _MODULES:
        raise AttributeError(f"module 'rlplatform' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
