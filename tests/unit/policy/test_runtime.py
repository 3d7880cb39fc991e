"""What a caller may and may not give to a policy, and what loading one imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlplatform.errors import PolicyInputError
from rlplatform.policy.export import export_bundle
from rlplatform.policy.runtime import PolicyRuntime
from rlplatform.policy.spaces import BoxSpace, space_from_gym
from tests.unit.policy import zoo


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PolicyRuntime]:
    """One policy for each kind of input."""
    root = tmp_path_factory.mktemp("bundles")
    wanted = {
        "box": zoo.Case("ppo", "box", "Discrete"),
        "image": zoo.Case("dqn", "image", "Discrete"),
        "dict": zoo.Case("ppo", "dict_choices", "Discrete"),
        "discrete": zoo.Case("ppo", "discrete", "Box"),
        "multi_discrete": zoo.Case("ppo", "multi_discrete", "Box"),
        "multi_binary": zoo.Case("ppo", "multi_binary", "Box"),
        "memory": zoo.Case("recurrent_ppo", "box", "Discrete"),
        "masks": zoo.Case("maskable_ppo", "box", "MultiDiscrete"),
    }
    for name, case in wanted.items():
        export_bundle(zoo.make_model(case), None, root / name)
    return {name: PolicyRuntime.load(root / name) for name in wanted}


BAD: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "shape": ("box", [0.0] * 4, {}, r"must have the shape \(5,\), or \('n', 5\) for a batch, got \(4,\)"),
    "empty batch": ("box", np.zeros((0, 5)), {}, "must have the shape"),
    "too many axes": ("box", np.zeros((1, 1, 5)), {}, "must have the shape"),
    "nan": ("box", [0, 0, 0, 0, float("nan")], {}, "must hold numbers, got NaN"),
    "nan and infinities": ("box", [np.inf, -np.inf, 0, 0, np.nan], {}, "must hold numbers, got NaN"),
    "text": ("box", ["a"] * 5, {}, "must hold numbers"),
    "ragged": ("box", [[0.0], [0.0, 1.0]], {}, "must be an array of numbers"),
    "none": ("box", None, {}, "must hold numbers"),
    "image of floats": ("image", np.zeros((40, 36, 3)), {}, "must hold integers"),
    "image out of range": ("image", np.full((40, 36, 3), 256), {}, "between 0 and 255"),
    "channels first": ("image", np.zeros((3, 40, 36), np.uint8), {}, "must have the shape"),
    "choice out of range": ("discrete", 7, {}, "from 0 to below 7"),
    "negative choice": ("multi_discrete", [0, -1, 0], {}, "from 0 to below"),
    "not a bit": ("multi_binary", [0, 1, 2, 0, 0, 0], {}, "from 0 to below 2"),
    "missing key": ("dict", {"choices": [0, 0]}, {}, "must be a mapping with the keys"),
    "not a mapping": ("dict", [0, 0], {}, "must be a mapping with the keys"),
    "batch sizes": (
        "dict",
        {"choices": np.zeros((2, 2), int), "with space/odd name": np.zeros(3, int)},
        {},
        "must have one batch size",
    ),
    "mask shape": ("masks", [0.0] * 5, {"action_masks": [True] * 3}, r"must have the shape \(9,\)"),
    "mask values": ("masks", [0.0] * 5, {"action_masks": [2] * 9}, "must be true or false"),
    "all masked": ("masks", [0.0] * 5, {"action_masks": [True] * 3 + [False] * 2 + [True] * 4}, "at least one action"),
    "mask of a Box": ("discrete", 1, {"action_masks": [True]}, "actions are not choices"),
    "state without memory": ("box", [0.0] * 5, {"state": (np.zeros(1),)}, "has no memory"),
    "state count": ("memory", [0.0] * 5, {"state": (np.zeros((2, 1, 8)),)}, "must have 4 arrays, got 1"),
    "state shape": ("memory", [0.0] * 5, {"state": (np.zeros((2, 2, 8)),) * 4}, r"must have the shape \(2, 1, 8\)"),
    "state nan": ("memory", [0.0] * 5, {"state": (np.full((2, 1, 8), np.nan),) * 4}, "got NaN"),
    "start shape": ("memory", np.zeros((2, 5)), {"episode_start": [True]}, r"must have the shape \(2,\)"),
    "start values": ("memory", np.zeros(5), {"episode_start": 3}, "must be true or false"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_input_is_refused_in_words(name: str, runtimes: dict[str, PolicyRuntime]) -> None:
    policy, obs, options, message = BAD[name]
    with pytest.raises(PolicyInputError, match=message):
        runtimes[policy].predict(obs, **options)


def test_lists_integers_and_other_floats_are_converted(runtimes: dict[str, PolicyRuntime]) -> None:
    exact = runtimes["box"].predict(np.arange(5, dtype=np.float32))
    for same in (list(range(5)), np.arange(5.0), np.arange(5, dtype=np.uint8), tuple(range(5))):
        np.testing.assert_array_equal(
            runtimes["box"].predict(same).distribution["logits"], exact.distribution["logits"]
        )
    image = zoo.observations(zoo.IMAGE, 1)[0]
    assert runtimes["image"].predict(image.tolist()).action == runtimes["image"].predict(image).action


def test_views_with_odd_strides_are_read_right(runtimes: dict[str, PolicyRuntime]) -> None:
    wide = zoo.observations(zoo.OBSERVATIONS["box"], 6)
    np.testing.assert_array_equal(
        runtimes["box"].predict(wide[::2]).value, runtimes["box"].predict(wide[::2].copy()).value
    )
    np.testing.assert_array_equal(
        runtimes["box"].predict(np.asfortranarray(wide)).value, runtimes["box"].predict(wide).value
    )


def test_an_infinite_observation_is_left_to_the_policy(runtimes: dict[str, PolicyRuntime]) -> None:
    assert np.isfinite(runtimes["box"].predict([np.inf, 0, 0, 0, 0]).value)


def test_a_single_observation_has_no_batch_axis(runtimes: dict[str, PolicyRuntime]) -> None:
    answer = runtimes["memory"].predict([0.0] * 5)
    assert np.shape(answer.action) == ()
    assert answer.distribution["logits"].shape == (4,)
    assert np.shape(answer.value) == ()
    assert answer.state is not None
    assert [array.shape for array in answer.state] == [(2, 1, 8)] * 4


def test_a_batch_of_one_keeps_its_axis(runtimes: dict[str, PolicyRuntime]) -> None:
    answer = runtimes["box"].predict([[0.0] * 5])
    assert answer.action.shape == (1,)
    assert answer.state is None


def test_an_episode_start_clears_the_memory(runtimes: dict[str, PolicyRuntime]) -> None:
    runtime, obs = runtimes["memory"], np.ones(5, np.float32)
    fresh = runtime.predict(obs)
    later = runtime.predict(obs, state=fresh.state)
    again = runtime.predict(obs, state=fresh.state, episode_start=True)
    assert (later.distribution["logits"] != fresh.distribution["logits"]).any()
    np.testing.assert_array_equal(again.distribution["logits"], fresh.distribution["logits"])


def test_the_description_of_a_space_survives_json_with_its_bounds() -> None:
    bounded = spaces.Box(np.array([-np.inf, 0.1], np.float32), np.array([1.0, np.inf], np.float32))
    everything: list[spaces.Space[Any]] = [
        *zoo.OBSERVATIONS.values(),
        *zoo.ACTIONS.values(),
        bounded,
        spaces.MultiBinary((2, 3)),
        spaces.Discrete(5, start=-2),
    ]
    for space in everything:
        described = space_from_gym(space)
        assert type(described).model_validate_json(described.model_dump_json()) == described
    box = space_from_gym(bounded)
    assert isinstance(box, BoxSpace)
    for found, expected in zip(box.bounds(), (bounded.low, bounded.high), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_acting_imports_neither_torch_nor_sb3(tmp_path: Path) -> None:
    export_bundle(zoo.make_model(zoo.Case("sac", "box", "Box")), None, tmp_path / "bundle")
    code = (
        f"import sys; from rlplatform.policy.runtime import PolicyRuntime; "
        f"PolicyRuntime.load({str(tmp_path / 'bundle')!r}).predict([0.0] * 5, deterministic=False); "
        f"print([m for m in ('torch', 'stable_baselines3', 'sb3_contrib', 'gymnasium', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
