from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import gymnasium as gym
import pytest

from rlplatform.envs import catalog
from rlplatform.envs.catalog import (
    BACKENDS,
    environments,
    family_of,
    find_reward,
    find_wrapper,
    load_target,
    rewards,
    wrappers,
)
from rlplatform.envs.make import make_env, spaces_of
from rlplatform.errors import EnvError, UnknownNameError
from rlplatform.specs.run import EnvSpec

BUILT_IN = [entry for entry in environments().values() if entry.target is None]


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.id)
def test_every_listed_environment_can_be_made_here(entry: object) -> None:
    env_id = entry.id  # type: ignore[attr-defined]
    observations, actions = spaces_of(EnvSpec(id=env_id))
    assert isinstance(observations, gym.spaces.Box)
    assert isinstance(actions, (gym.spaces.Box, gym.spaces.Discrete))


@pytest.mark.parametrize("entry", [*wrappers().values(), *rewards().values()], ids=lambda entry: entry.name)
def test_every_listed_wrapper_and_reward_exists(entry: object) -> None:
    assert callable(load_target(entry.target))  # type: ignore[attr-defined]
    assert entry.summary.endswith(".")  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"ray"}))
def test_every_backend_exists(backend: str) -> None:
    assert callable(load_target(BACKENDS[backend]))


def test_another_package_adds_by_entry_points_but_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    added = {
        "rlplatform.environments": {"Tiny-v0": "tests.envs_for_tests:TinyEnv", "CartPole-v1": "tests:Wrong"},
        "rlplatform.wrappers": {"tiny_clip": "gymnasium.wrappers:ClipReward", "atari": "tests:Wrong"},
        "rlplatform.rewards": {"tiny": "rlplatform.envs.rewards:simple_cartpole", "simple_cartpole": "tests:Wrong"},
    }

    def fake(group: str) -> EntryPoints:
        return EntryPoints(EntryPoint(name, value, group) for name, value in added.get(group, {}).items())

    monkeypatch.setattr(importlib.metadata, "entry_points", fake)
    monkeypatch.setattr(catalog, "_plugins", catalog._plugins.__wrapped__)  # not what was found before
    assert environments()["CartPole-v1"].target is None
    assert find_wrapper("atari").target.startswith("stable_baselines3")
    assert find_reward("simple_cartpole").target.startswith("rlplatform")
    assert find_reward("tiny").target == "rlplatform.envs.rewards:simple_cartpole"
    env = make_env(
        EnvSpec(id="Tiny-v0", wrappers=({"name": "tiny_clip", "kwargs": {"max_reward": 0.0}},)), training=False
    )
    env.reset(seed=0)
    assert isinstance(env, gym.wrappers.ClipReward)


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (find_wrapper, "frame_stak", "Unknown wrapper 'frame_stak'. Did you mean 'frame_stack'"),
        (find_reward, "optimised_cartpole", "Unknown reward 'optimised_cartpole'. Did you mean 'optimized_cartpole'"),
    ],
)
def test_unknown_names_give_the_nearest(find: object, name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        find(name)  # type: ignore[operator]


def test_modules_of_the_current_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_mine_for_this_test.py").write_text("class Thing:\n    part = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert load_target("module_of_mine_for_this_test:Thing.part") == 3


@pytest.mark.parametrize("target", ["no_such_module_at_all:Thing", "rlplatform.names:Thing", "rlplatform.names:"])
def test_targets_that_are_not_there_are_refused(target: str) -> None:
    with pytest.raises(EnvError, match=r"cannot be loaded: .* Write `module:attribute`"):
        load_target(target)


@pytest.mark.parametrize(
    ("env_id", "module"),
    [("ALE/Pong-v5", "ale_py"), ("MiniGrid-Empty-5x5-v0", "minigrid"), ("CartPole-v1", None)],
)
def test_the_package_that_registers_an_id_is_known(env_id: str, module: str | None) -> None:
    family = family_of(env_id)
    assert (family and family.module) == module
