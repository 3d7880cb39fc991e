"""What cannot be published is refused in words, and a model without its environment can be told the space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from rlplatform.errors import BundleError
from rlplatform.policy.export import export_bundle
from rlplatform.policy.runtime import PolicyRuntime
from rlplatform.train.normalizer import Moments, Normalizer
from tests.unit.policy import zoo


def test_a_policy_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    class Mine(BasePolicy):
        def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
            return torch.zeros(len(observation))

    class Model:
        policy = Mine(zoo.OBSERVATIONS["box"], zoo.ACTIONS["Discrete"])

    with pytest.raises(BundleError, match="policy of the class Mine cannot be published"):
        export_bundle(cast(BaseAlgorithm, Model()), None, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_observations_that_count_from_elsewhere_are_refused(tmp_path: Path) -> None:
    env = zoo.Still(spaces.Discrete(3, start=1), spaces.Discrete(2))
    with pytest.raises(BundleError, match="count from 1 cannot be published"):
        export_bundle(PPO("MlpPolicy", env, device="cpu", n_steps=8, batch_size=8), None, tmp_path / "b")


def test_statistics_of_another_shape_are_refused(tmp_path: Path) -> None:
    moments = Moments(np.zeros(3), np.ones(3), 1.0)
    normalizer = Normalizer({"": moments}, moments, {"clip_obs": 10.0, "epsilon": 1e-8})
    with pytest.raises(BundleError, match=r"have the shape \(3,\), but the environment gives \(5,\)"):
        export_bundle(zoo.make_model(zoo.Case("ppo", "box", "Box")), normalizer, tmp_path / "b")


def test_another_observation_space_is_refused(tmp_path: Path) -> None:
    model = zoo.make_model(zoo.Case("ppo", "box", "Box"))
    with pytest.raises(BundleError, match=r"sees observations of shape \(5,\), but the environment gives \(7,\)"):
        export_bundle(model, None, tmp_path / "b", observation_space=spaces.Box(0, 1, (7,)))


@pytest.mark.parametrize("observation", ["image", "dict"])
def test_a_loaded_model_takes_the_environments_own_images(observation: str, tmp_path: Path) -> None:
    model = zoo.make_model(zoo.Case("ppo", observation, "Discrete"))
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    space = zoo.OBSERVATIONS[observation]
    export_bundle(loaded, None, tmp_path / "b", observation_space=space)
    obs = zoo.observations(space, 50)
    expected, _ = model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(PolicyRuntime.load(tmp_path / "b").predict(obs).action, expected)


def test_exporting_again_replaces_the_bundle_whole(tmp_path: Path) -> None:
    for algorithm in ("ppo", "dqn"):
        export_bundle(zoo.make_model(zoo.Case(algorithm, "box", "Discrete")), None, tmp_path / "b")
    assert PolicyRuntime.load(tmp_path / "b").manifest.algorithm == "dqn"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_small_graph_has_no_node_that_does_nothing(tmp_path: Path) -> None:
    bundle = export_bundle(zoo.make_model(zoo.Case("ppo", "box", "Discrete")), None, tmp_path / "b")
    nodes = [node.op_type for node in onnx.load(bundle.path / "policy.onnx").graph.node]
    assert nodes.count("Flatten") == 1
    assert not {"Slice", "Concat", "Reshape"} & set(nodes)
