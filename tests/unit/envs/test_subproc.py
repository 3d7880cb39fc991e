from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from rlplatform.envs.make import make_env, make_vec_env
from rlplatform.envs.recorder import Recorder
from rlplatform.envs.subproc import SubprocessVecEnv
from rlplatform.errors import EnvError, EnvWorkerDied
from rlplatform.specs.run import EnvSpec
from tests.envs_for_tests import TinyEnv
from tests.unit.envs.helpers import actions_for, assert_same, trace


class Fragile(TinyEnv):
    """A TinyEnv that fails, or dies, when told."""

    broken = False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.broken:
            raise ZeroDivisionError("the pole is made of glass")
        return super().step(action)

    def interrupt(self) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "still here"

    def die(self) -> None:
        os._exit(9)

    def break_it(self) -> None:
        self.broken = True


@pytest.fixture(scope="module")
def five() -> Iterator[SubprocessVecEnv]:
    env = EnvSpec(id="tests.unit.envs.test_subproc:Fragile", kwargs={"observations": "dict"}, n_envs=5)
    with contextlib.closing(SubprocessVecEnv([partial(make_env, env, training=True)] * 5, 2)) as venv:
        yield venv


def test_processes_give_what_one_process_gives(five: SubprocessVecEnv) -> None:
    env = EnvSpec(id="tests.unit.envs.test_subproc:Fragile", kwargs={"observations": "dict"}, n_envs=5, backend="sync")
    sync = make_vec_env(env, seed=3)
    five.seed(3)
    first, expected = five.reset(), sync.reset()
    assert_same([(first,)], [(expected,)])
    actions = actions_for(sync, 40, seed=0)
    assert_same(trace(five, actions), trace(sync, actions))
    assert_same([(five.reset(),)], [(sync.reset(),)])


def test_chosen_environments_are_reached_in_their_order(five: SubprocessVecEnv) -> None:
    for i in range(5):
        five.set_attr("name", f"env {i}", indices=i)
    assert five.get_attr("name", indices=[4, 0, 3]) == ["env 4", "env 0", "env 3"]
    assert five.get_attr("name") == [f"env {i}" for i in range(5)]
    assert five.env_is_wrapped(Recorder) == [True] * 5
    assert not five.has_attr("action_masks")


def test_ctrl_c_does_not_reach_the_workers(five: SubprocessVecEnv) -> None:
    assert five.env_method("interrupt") == ["still here"] * 5


def test_what_an_environment_raises_is_told_and_a_dead_worker_is_named() -> None:
    env = EnvSpec(id="tests.unit.envs.test_subproc:Fragile", n_envs=2)
    with contextlib.closing(SubprocessVecEnv([partial(make_env, env, training=True)] * 2, 2)) as venv:
        venv.reset()
        venv.env_method("break_it", indices=1)
        with pytest.raises(EnvError, match="raised ZeroDivisionError: the pole is made of glass"):
            venv.step(actions_for(venv, 1, seed=0)[0])
        with pytest.raises(EnvWorkerDied, match=r"worker 1 of 2 died \(exit code 9\)"):
            venv.env_method("die", indices=0)


def test_an_environment_that_cannot_be_made_in_a_worker_is_told() -> None:
    env = EnvSpec(id="tests.unit.envs.test_subproc:Missing")
    with pytest.raises(EnvError, match=r"test_subproc:Missing' cannot be loaded"):
        SubprocessVecEnv([partial(make_env, env, training=True)], 1)


def test_action_masks_come_from_the_workers() -> None:
    env = EnvSpec(id="tests.envs_for_tests:MaskedEnv", n_envs=2, backend="subproc", n_workers=1)
    with contextlib.closing(make_vec_env(env, seed=0)) as venv:
        venv.reset()
        assert venv.has_attr("action_masks")
        assert [mask.shape for mask in venv.env_method("action_masks")] == [(3,), (3,)]
