"""Algorithms of other packages, through entry points that stand in for installed ones."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import ValidationError
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rlplatform.algos import catalog
from rlplatform.algos.amend import apply_amendment
from rlplatform.algos.build import algorithm_class, build_model
from rlplatform.algos.catalog import AlgorithmEntry, algorithm_names, algorithms, find_algorithm
from rlplatform.errors import AlgorithmError, SpecError
from rlplatform.specs.algo_options import PositiveInt
from rlplatform.specs.algos import AlgoSpec, parse_algo, spec_class
from tests.envs_for_tests import TinyEnv

EXAMPLE = Path(__file__).parents[3] / "examples" / "plugin_algorithm"


class ShortSpec(AlgoSpec):
    """A spec written by hand, with a range of its own."""

    name: str = "short"
    n_steps: PositiveInt = 8


SHORT = AlgorithmEntry(
    name="short",
    algorithm="rlplatform_reinforce:Reinforce",
    family="on_policy",
    action_spaces=("Discrete",),
    spec=f"{__name__}:ShortSpec",
    summary="By entry.",
)
NOTHING = 3


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    points = {
        "reinforce": "rlplatform_reinforce:Reinforce",
        "short": f"{__name__}:SHORT",
        "ppo": f"{__name__}:NOTHING",
    }
    _install(monkeypatch, points)
    monkeypatch.setattr(catalog, "_plugins", catalog._plugins.__wrapped__)  # not what was found before
    yield
    sys.modules.pop("rlplatform_reinforce", None)
    importlib.invalidate_caches()


def _install(monkeypatch: pytest.MonkeyPatch, points: dict[str, str]) -> None:
    installed = [EntryPoint(name, value, "rlplatform.algorithms") for name, value in points.items()]
    monkeypatch.setattr(catalog, "entry_points", lambda group: installed)


def test_installed_algorithms_are_in_the_catalog_and_ours_stay_ours() -> None:
    assert algorithm_names()[-2:] == ["reinforce", "short"]
    assert algorithms()["reinforce"].family == "on_policy"
    assert find_algorithm("Short") == SHORT
    assert find_algorithm("ppo").algorithm == "stable_baselines3.ppo:PPO"


def test_a_spec_is_derived_from_the_constructor() -> None:
    options = set(spec_class("reinforce").model_fields) - set(AlgoSpec.model_fields)
    assert options == {"learning_rate", "n_steps", "gamma", "vf_coef", "max_grad_norm"}
    spec = parse_algo({"name": "reinforce", "learning_rate": "lin_1e-3", "n_steps": 64, "gamma": "0.9"})
    assert parse_algo(spec.model_dump(mode="json")) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValidationError, match=r"`n_step` is not an option of `reinforce`\. Did you mean 'n_steps'"):
        parse_algo({"name": "reinforce", "n_step": 64})


def test_a_derived_spec_builds_trains_and_is_amended() -> None:
    spec = parse_algo({"name": "reinforce", "n_steps": 16, "policy_kwargs": {"net_arch": [8]}})
    model = build_model(spec, DummyVecEnv([lambda: Monitor(TinyEnv())]), seed=0, device="cpu")
    model.learn(32)
    assert model._n_updates == 2
    apply_amendment(model, spec, parse_algo({**spec.model_dump(), "learning_rate": 0.5}))
    assert model.lr_schedule(1.0) == 0.5
    with pytest.raises(SpecError, match=r"`algorithm\.gamma` cannot change on a live model"):
        apply_amendment(model, spec, parse_algo({**spec.model_dump(), "gamma": 0.5}))


def test_a_spec_written_by_hand_is_used() -> None:
    assert isinstance(parse_algo("short"), ShortSpec)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        parse_algo({"name": "short", "n_steps": 0})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Thing", "cannot be loaded from 'no_such_module:Thing'.*Repair or uninstall"),
        (f"{__name__}:Missing", "cannot be loaded"),
        (f"{__name__}:NOTHING", "must be an AlgorithmEntry or a class, got 3"),
    ],
)
def test_a_broken_package_is_named_only_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    _install(monkeypatch, {"broken": target})
    assert find_algorithm("ppo").name == "ppo"
    with pytest.raises(AlgorithmError, match=message):
        find_algorithm("broken")


def test_a_class_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {"shape": "pathlib:Path"})
    with pytest.raises(AlgorithmError, match="must be a subclass of SB3's BaseAlgorithm"):
        algorithm_class("shape")


def test_an_entry_with_a_wrong_spec_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {"odd": f"{__name__}:ODD"})
    with pytest.raises(AlgorithmError, match="must be a subclass of AlgoSpec"):
        spec_class("odd")


ODD = AlgorithmEntry("odd", "rlplatform_reinforce:Reinforce", "on_policy", spec="pathlib:Path")


def test_the_spec_in_the_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLE.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "AlgorithmEntry(" in block]
    documented = types.ModuleType("rlplatform_reinforce_spec")
    exec(compile(code, "extending.md", "exec"), documented.__dict__)
    monkeypatch.setitem(sys.modules, documented.__name__, documented)
    _install(monkeypatch, {"reinforce": f"{documented.__name__}:REINFORCE"})
    spec = parse_algo({"name": "reinforce", "n_steps": 16})
    assert "vf_coef" in spec.amendable
    model = build_model(spec, DummyVecEnv([TinyEnv]), seed=0, device="cpu")
    assert getattr(model, "n_steps", None) == 16
