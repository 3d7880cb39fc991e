"""What every test gets: one thread for each library, a home of its own, and a marker from its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

# Before any import of torch, NumPy or onnxruntime: they read these once.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import pytest  # noqa: E402

_TESTS = Path(__file__).parent
_MARKERS = ("unit", "integration", "e2e", "learning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the folder it lies in."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if folder in _MARKERS:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's variables out of tests, and what tests write out of the user's folders."""
    for name in [name for name in os.environ if name.startswith("RLPLATFORM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RLPLATFORM_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _no_ray_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that starts Ray is in the wrong folder."""
    if request.node.get_closest_marker("unit") is None:
        return
    import ray

    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise AssertionError("A unit test called ray.init(). Test without Ray, or move the test to tests/integration.")

    monkeypatch.setattr(ray, "init", refuse)
