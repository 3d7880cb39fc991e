from __future__ import annotations

import contextlib
import sys

import numpy as np
import pytest

from rlplatform.envs.make import make_vec_env, resolve_env
from rlplatform.envs.recorder import same_bits
from rlplatform.errors import EnvError, MissingPackageError, UnknownNameError
from rlplatform.specs.run import EnvSpec
from tests.unit.envs.helpers import actions_for, assert_same, trace

CARTPOLE = EnvSpec(id="CartPole-v1", n_envs=4, backend="envpool", n_workers=1, max_episode_steps=30)


def test_a_pool_resets_in_the_same_step_and_counts_its_episodes() -> None:
    with contextlib.closing(make_vec_env(CARTPOLE, seed=0)) as venv:
        venv.reset()
        lengths = np.zeros(4, dtype=int)
        ends = 0
        for action in actions_for(venv, 100, seed=0):
            obs, _, dones, infos = venv.step(action)
            assert isinstance(obs, np.ndarray)
            lengths += 1
            for i in np.flatnonzero(dones):
                assert infos[i]["episode"]["l"] == infos[i]["episode"]["r"] == lengths[i]
                assert infos[i]["TimeLimit.truncated"] == (lengths[i] == 30)
                assert np.abs(infos[i]["terminal_observation"]).max() > 0.05
                assert (np.abs(obs[i]) <= 0.05).all()
                lengths[i] = 0
                ends += 1
        assert ends > 10


def test_a_pool_is_repeated_by_its_seed_also_when_seeded_later() -> None:
    actions = None
    traces = []
    for first_seed in (5, 6):
        with contextlib.closing(make_vec_env(CARTPOLE, seed=first_seed)) as venv:
            venv.seed(5)
            venv.reset()
            actions = actions or actions_for(venv, 50, seed=0)
            traces.append(trace(venv, actions))
    assert_same(*traces)


def test_another_pool_episode_follows_a_plain_reset() -> None:
    with contextlib.closing(make_vec_env(CARTPOLE, seed=0)) as venv:
        assert not same_bits(venv.reset(), venv.reset())


def test_auto_never_picks_a_pool() -> None:
    assert resolve_env(CARTPOLE.model_copy(update={"backend": "auto", "n_envs": 8}), seed=0).backend == "vector"


def test_a_missing_envpool_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingPackageError, match="Run `pip install envpool`"):
        make_vec_env(CARTPOLE, seed=0)


def test_what_a_pool_cannot_do_is_an_error() -> None:
    with pytest.raises(EnvError, match="cannot wrap single environments, got the wrappers time_aware"):
        make_vec_env(EnvSpec(id="CartPole-v1", backend="envpool", wrappers=("time_aware",)), seed=0)
    with pytest.raises(
        UnknownNameError, match=r"Unknown EnvPool environment 'CartPole-v9'. Did you mean .*'CartPole-v1'"
    ):
        make_vec_env(EnvSpec(id="CartPole-v9", backend="envpool"), seed=0)
    with pytest.raises(EnvError, match=r"'Blackjack-v1' the observation space .* evaluation is on Gymnasium's"):
        resolve_env(EnvSpec(id="Blackjack-v1", backend="envpool"), seed=0)
