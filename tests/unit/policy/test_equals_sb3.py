"""The published policy acts as SB3's `predict`: every algorithm, every observation space, every action space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from rlplatform.algos.catalog import algorithms
from rlplatform.policy.export import export_bundle
from rlplatform.policy.runtime import PolicyRuntime, Prediction
from rlplatform.train.normalizer import Normalizer
from tests.unit.policy import zoo

TOLERANCE = 1e-5
"""Largest difference of a continuous action, and of two scores that count as a tie."""
GSDE = ("ppo", "a2c", "recurrent_ppo", "sac", "tqc", "crossq")
NORMALIZED = [
    case for case in zoo.cases() if case.action in ("Box", "Discrete") and case.observation in ("box", "dict")
]


@pytest.mark.parametrize("case", zoo.cases(), ids=str)
def test_deterministic_actions_are_those_of_predict(case: zoo.Case, tmp_path: Path) -> None:
    _compare(zoo.make_model(case), zoo.OBSERVATIONS[case.observation], tmp_path)


@pytest.mark.parametrize("case", NORMALIZED, ids=str)
def test_normalisation_is_baked_in(case: zoo.Case, tmp_path: Path) -> None:
    model = zoo.make_model(case, normalize=True)
    vec_normalize = model.get_vec_normalize_env()
    assert vec_normalize is not None
    runtime = _compare(model, zoo.OBSERVATIONS[case.observation], tmp_path, Normalizer.of(vec_normalize))
    assert runtime.manifest.normalized


@pytest.mark.parametrize("kwargs", [{}, {"full_std": False, "use_expln": True}], ids=["full", "expln"])
@pytest.mark.parametrize("algorithm", GSDE)
def test_state_dependent_exploration_leaves_the_greedy_action(
    algorithm: str, kwargs: dict[str, Any], tmp_path: Path
) -> None:
    if algorithm in ("sac", "tqc", "crossq"):
        kwargs = {"use_expln": kwargs.get("use_expln", False)}
    model = zoo.make_model(zoo.Case(algorithm, "box", "Box"), use_sde=True, policy_kwargs=kwargs)
    _compare(model, zoo.OBSERVATIONS["box"], tmp_path)


def test_squashed_ppo_is_unscaled(tmp_path: Path) -> None:
    model = zoo.make_model(zoo.Case("ppo", "box", "Box"), use_sde=True, policy_kwargs={"squash_output": True})
    runtime = _compare(model, zoo.OBSERVATIONS["box"], tmp_path)
    assert runtime.manifest.distribution.type == "squashed_gaussian"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"shared_lstm": True, "enable_critic_lstm": False},
        {"shared_lstm": False, "enable_critic_lstm": False},
        {"share_features_extractor": False},
    ],
    ids=["shared", "no_critic_lstm", "own_features"],
)
def test_every_shape_of_recurrent_critic_is_published(kwargs: dict[str, bool], tmp_path: Path) -> None:
    model = zoo.make_model(zoo.Case("recurrent_ppo", "box", "Discrete"), policy_kwargs=kwargs)
    _compare(model, zoo.OBSERVATIONS["box"], tmp_path)


@pytest.mark.parametrize("action", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_masks_forbid_what_they_forbid_in_maskable_ppo(action: str, tmp_path: Path) -> None:
    model = zoo.make_model(zoo.Case("maskable_ppo", "box", action))
    runtime = _publish(model, tmp_path)
    obs = zoo.observations(zoo.OBSERVATIONS["box"], 2000)
    masks = np.random.default_rng(3).random((2000, runtime.manifest.mask_size or 0)) < 0.6
    masks[:, np.cumsum([0, *runtime.manifest.distribution.nvec[:-1]])] = True
    predict: Any = model.predict
    expected, _ = predict(obs, deterministic=True, action_masks=masks)
    free, _ = predict(obs, deterministic=True)
    answer = runtime.predict(obs, action_masks=masks)
    _assert_same_choices(answer, expected, runtime)
    assert (answer.action != free).any()


def test_masks_work_for_policies_trained_without_them(tmp_path: Path) -> None:
    for algorithm in ("ppo", "dqn"):
        runtime = _publish(zoo.make_model(zoo.Case(algorithm, "box", "Discrete")), tmp_path / algorithm)
        obs = zoo.observations(zoo.OBSERVATIONS["box"], 500)
        free = runtime.predict(obs)
        masks = np.ones((500, 4), bool)
        masks[np.arange(500), free.action] = False
        scores = np.where(masks, next(iter(free.distribution.values())), -np.inf)
        np.testing.assert_array_equal(runtime.predict(obs, action_masks=masks).action, scores.argmax(axis=1))


def test_single_observations_are_answered_as_batches_are(tmp_path: Path) -> None:
    for observation, space in zoo.OBSERVATIONS.items():
        runtime = _publish(zoo.make_model(zoo.Case("ppo", observation, "Box")), tmp_path / observation)
        batch = zoo.observations(space, 3)
        one = {key: value[1] for key, value in batch.items()} if isinstance(batch, dict) else batch[1]
        np.testing.assert_allclose(runtime.predict(one).action, runtime.predict(batch).action[1], atol=1e-6)


def test_export_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = zoo.make_model(zoo.Case("crossq", "box", "Box"))
    model.policy.set_training_mode(True)
    before = [module.training for module in model.policy.modules()]
    weights = {name: value.clone() for name, value in model.policy.state_dict().items()}
    _publish(model, tmp_path)
    assert [module.training for module in model.policy.modules()] == before
    assert all((value == weights[name]).all() for name, value in model.policy.state_dict().items())


def _publish(model: BaseAlgorithm, folder: Path, normalizer: Normalizer | None = None) -> PolicyRuntime:
    export_bundle(model, normalizer, folder / "bundle")
    return PolicyRuntime.load(folder / "bundle")


def _compare(
    model: BaseAlgorithm, space: spaces.Space[Any], folder: Path, normalizer: Normalizer | None = None
) -> PolicyRuntime:
    """Compare actions, and for recurrent policies several steps with episodes that begin in between."""
    runtime = _publish(model, folder, normalizer)
    has_image = space is zoo.IMAGE or isinstance(space, spaces.Dict)
    recurrent = bool(runtime.manifest.state)
    n, n_steps = (500 if has_image else 2500) // (5 if recurrent else 1), 5 if recurrent else 1
    sb3_state: Any = None
    state, actions = None, []
    for step in range(n_steps):
        obs = zoo.observations(space, n, seed=step)
        seen = normalizer.normalize_obs(obs) if normalizer else obs
        starts = np.random.default_rng(step).random(n) < 0.3 if step else np.ones(n, bool)
        expected, sb3_state = model.predict(seen, state=sb3_state, episode_start=starts, deterministic=True)
        answer = runtime.predict(obs, state=state, episode_start=starts if recurrent else None)
        state = answer.state
        actions.append(answer.action)
        if isinstance(model.action_space, spaces.Box):
            np.testing.assert_allclose(answer.action, expected, atol=TOLERANCE, rtol=0)
        else:
            _assert_same_choices(answer, expected, runtime)
        assert answer.action.dtype == model.action_space.dtype
        if recurrent:
            assert state is not None
            np.testing.assert_allclose(np.stack(state[:2]), np.stack(sb3_state), atol=TOLERANCE)
    assert len(np.unique(np.concatenate(actions), axis=0)) > 1, "a constant policy would prove nothing"
    return runtime


def _assert_same_choices(answer: Prediction, expected: np.ndarray, runtime: PolicyRuntime) -> None:
    """Compare bit for bit, except where the two best scores are a tie at the precision of float32."""
    action, (scores,) = answer.action, answer.distribution.values()
    differs = (action != expected).reshape(len(action), -1)
    if runtime.manifest.distribution.type == "bernoulli":
        ties = np.abs(scores) < TOLERANCE
    else:
        parts = np.split(scores, np.cumsum(runtime.manifest.distribution.nvec)[:-1], axis=1)
        best = [np.sort(part, axis=1)[:, -2:] for part in parts]
        ties = np.stack([pair[:, -1] - pair[:, 0] < TOLERANCE for pair in best], axis=1)
    assert not (differs & ~ties).any()
    assert differs.sum() <= 2, "ties are rare"


def test_every_algorithm_of_the_catalog_is_covered() -> None:
    assert {case.algorithm for case in zoo.cases()} == set(algorithms())
