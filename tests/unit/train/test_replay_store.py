from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from rlplatform.artifacts.checkpoint import hash_file
from rlplatform.errors import CheckpointError
from rlplatform.train import replay_store
from rlplatform.train.replay_store import INDEX_FILE, load_buffer, save_buffer

BOX = spaces.Box(-1, 1, (3,), np.float32)
ACTION = spaces.Box(-1, 1, (2,), np.float32)
DICT = spaces.Dict({"image": spaces.Box(0, 255, (1, 4, 4), np.uint8), "goal": spaces.Discrete(5), "arm/x": BOX})
LEAN = {"optimize_memory_usage": True, "handle_timeout_termination": False}

KINDS: dict[str, tuple[type[ReplayBuffer], spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "box": (ReplayBuffer, BOX, ACTION, {}),
    "image": (ReplayBuffer, spaces.Box(0, 255, (1, 4, 4), np.uint8), spaces.Discrete(3), {}),
    "discrete": (ReplayBuffer, spaces.Discrete(4), spaces.MultiBinary(3), {}),
    "float64": (ReplayBuffer, spaces.Box(-1, 1, (2,), np.float64), spaces.Box(-1, 1, (1,), np.float64), {}),
    "dict": (DictReplayBuffer, DICT, ACTION, {}),
    "lean": (ReplayBuffer, BOX, ACTION, LEAN),
    "n_step": (NStepReplayBuffer, BOX, ACTION, {"n_steps": 3}),
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_store, "CHUNK_ROWS", 8)


def make(kind: str, *, size: int = 40, n_envs: int = 2) -> ReplayBuffer:
    buffer_class, observation_space, action_space, options = KINDS[kind]
    return buffer_class(size * n_envs, observation_space, action_space, device="cpu", n_envs=n_envs, **options)


def observe(space: spaces.Space[Any], n_envs: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: observe(part, n_envs) for key, part in space.items()}
    return np.stack([np.asarray(space.sample()) for _ in range(n_envs)])


def add(buffer: ReplayBuffer, n_rows: int, seed: int = 0) -> None:
    buffer.observation_space.seed(seed)
    buffer.action_space.seed(seed)
    rng = np.random.default_rng(seed)
    obs = observe(buffer.observation_space, buffer.n_envs)
    for _ in range(n_rows):
        next_obs = observe(buffer.observation_space, buffer.n_envs)
        actions = observe(buffer.action_space, buffer.n_envs)
        dones = rng.random(buffer.n_envs) < 0.2
        infos = [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)} for done in dones]
        buffer.add(obs, next_obs, actions, rng.normal(size=buffer.n_envs), dones, infos)
        obs = next_obs


def assert_equal(left: ReplayBuffer, right: ReplayBuffer) -> None:
    assert (left.pos, left.full) == (right.pos, right.full)
    arrays, others = dict(replay_store._arrays(left)), dict(replay_store._arrays(right))
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def checkpoint(path: Path) -> Path:
    path.mkdir()
    return path


def save(buffer: ReplayBuffer, path: Path, rows_added: int, donor: Path | None = None) -> dict[str, Any]:
    return dict(save_buffer(buffer, checkpoint(path) / "replay", rows_added=rows_added, donor=donor))


def linked(path: Path) -> set[str]:
    return {file.name for file in (path / "replay").iterdir() if file.stat().st_nlink > 1}


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("n_rows", [0, 13, 39, 40, 77])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_buffer_comes_back_equal_at_every_filling(tmp_path: Path, kind: str, n_rows: int, n_envs: int) -> None:
    buffer = make(kind, n_envs=n_envs)
    add(buffer, n_rows)
    records = save(buffer, tmp_path / "a", n_rows)
    again = make(kind, n_envs=n_envs)
    load_buffer(again, tmp_path / "a" / "replay")
    assert_equal(buffer, again)
    files = {path.relative_to(tmp_path / "a").as_posix(): hash_file(path) for path in (tmp_path / "a").rglob("*.*")}
    assert records == files


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_chain_of_donors_keeps_every_checkpoint_right_around_the_ring(tmp_path: Path, kind: str) -> None:
    buffer, rows_added = make(kind), 0
    buffers = []
    for number, more in enumerate([5, 0, 11, 8, 3, 20, 1, 39, 40, 41, 7, 100, 2]):
        add(buffer, more, seed=number)
        rows_added += more
        donor = tmp_path / str(number - 2) if number >= 2 else None
        records = save(buffer, tmp_path / str(number), rows_added, donor)
        for name, record in records.items():
            assert hash_file(tmp_path / str(number) / name) == record, name
        kept = make(kind)
        load_buffer(kept, tmp_path / str(number) / "replay")
        assert_equal(buffer, kept)
        buffers.append(kept)
    for number, kept in enumerate(buffers):
        later = make(kind)
        load_buffer(later, tmp_path / str(number) / "replay")
        assert_equal(kept, later)


def test_only_chunks_that_changed_since_the_donor_are_written(tmp_path: Path) -> None:
    buffer = make("box")
    add(buffer, 37)
    save(buffer, tmp_path / "a", 37)
    add(buffer, 5)  # rows 37 to 39, then 0 and 1
    save(buffer, tmp_path / "b", 42, tmp_path / "a")
    names = [name for name, _ in replay_store._arrays(buffer)]
    assert linked(tmp_path / "b") == {f"{name}.{chunk:05d}.npy" for name in names for chunk in (1, 2, 3)}


def test_the_row_of_the_next_observation_counts_as_changed_when_memory_is_saved(tmp_path: Path) -> None:
    buffer = make("lean")
    add(buffer, 15)
    save(buffer, tmp_path / "a", 15)
    add(buffer, 1)  # the transition is in row 15, the end of its chunk; its next observation in row 16, of the next
    save(buffer, tmp_path / "b", 16, tmp_path / "a")
    assert linked(tmp_path / "b") == {path.name for path in (tmp_path / "b" / "replay").glob("*.00000.npy")}
    again = make("lean")
    load_buffer(again, tmp_path / "b" / "replay")
    np.testing.assert_array_equal(again.observations[16], buffer.observations[16])


@pytest.mark.parametrize("wrong_count", [36, 41, 43, 5])
def test_a_donor_whose_ring_does_not_lead_here_is_not_used(tmp_path: Path, wrong_count: int) -> None:
    buffer = make("box")
    add(buffer, 37)
    save(buffer, tmp_path / "a", 37)
    add(buffer, 5)
    save(buffer, tmp_path / "b", wrong_count, tmp_path / "a")
    assert linked(tmp_path / "b") == set()


@pytest.mark.parametrize("damage", ["index missing", "index cut", "of another size", "no folder"])
def test_an_unusable_donor_costs_only_space(tmp_path: Path, damage: str) -> None:
    buffer = make("box")
    add(buffer, 20)
    save(make("box", size=41) if damage == "of another size" else buffer, tmp_path / "a", 20)
    index = tmp_path / "a" / "replay" / INDEX_FILE
    if damage == "index missing":
        index.unlink()
    elif damage == "index cut":
        index.write_bytes(index.read_bytes()[:50])
    elif damage == "no folder":
        shutil.rmtree(tmp_path / "a")
    save(buffer, tmp_path / "b", 20, tmp_path / "a")
    again = make("box")
    load_buffer(again, tmp_path / "b" / "replay")
    assert_equal(buffer, again)


def test_where_links_are_refused_chunks_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    buffer = make("dict")
    add(buffer, 20)
    first = save(buffer, tmp_path / "a", 20)
    second = save(buffer, tmp_path / "b", 20, tmp_path / "a")
    assert linked(tmp_path / "b") == set()
    assert first == second


def test_arrays_of_a_subclass_that_may_change_anywhere_are_written_whole(tmp_path: Path) -> None:
    class Prioritised(ReplayBuffer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.priorities = np.ones((self.buffer_size, self.n_envs))

    def build() -> Prioritised:
        return Prioritised(40, BOX, ACTION, device="cpu")

    buffer = build()
    add(buffer, 30)
    save(buffer, tmp_path / "a", 30)
    buffer.priorities[2] = 7.0
    save(buffer, tmp_path / "b", 30, tmp_path / "a")
    again = build()
    load_buffer(again, tmp_path / "b" / "replay")
    assert again.priorities[2] == 7.0
    assert not any(name.startswith("priorities") for name in linked(tmp_path / "b"))


def test_python_objects_in_a_buffer_are_refused(tmp_path: Path) -> None:
    buffer = make("box")
    buffer.__dict__["infos"] = np.array([[{}]] * 40)
    with pytest.raises(CheckpointError, match="`infos` of ReplayBuffer holds Python objects"):
        save(buffer, tmp_path / "a", 0)


@pytest.mark.parametrize("other", [make("box", size=41), make("image"), make("lean"), make("box", n_envs=1)])
def test_a_buffer_of_another_shape_is_refused_before_anything_is_read(tmp_path: Path, other: ReplayBuffer) -> None:
    buffer = make("box")
    add(buffer, 20)
    save(buffer, tmp_path / "a", 20)
    with pytest.raises(CheckpointError, match=r"does not fit: it has 40 rows of .*observations <f4\[2, 3\]"):
        load_buffer(other, tmp_path / "a" / "replay")
    assert other.size() == 0


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", None])
def test_an_unreadable_chunk_is_named(tmp_path: Path, content: bytes | None) -> None:
    buffer = make("box")
    add(buffer, 20)
    save(buffer, tmp_path / "a", 20)
    path = tmp_path / "a" / "replay" / "rewards.00001.npy"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(CheckpointError, match=r"rewards\.00001\.npy (cannot be read|ends early).*older checkpoint"):
        load_buffer(make("box"), tmp_path / "a" / "replay")


def test_chunks_are_ordinary_npy_files(tmp_path: Path) -> None:
    buffer = make("box")
    add(buffer, 20)
    save(buffer, tmp_path / "a", 20)
    rows = np.load(tmp_path / "a" / "replay" / "observations.00002.npy", allow_pickle=False)
    np.testing.assert_array_equal(rows, buffer.observations[16:20])


def test_a_partly_filled_buffer_of_a_million_rows_saves_only_what_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_store, "CHUNK_ROWS", 8_192)
    buffer = ReplayBuffer(1_000_000, BOX, ACTION, device="cpu")
    add(buffer, 100)
    save(buffer, tmp_path / "a", 100)
    assert sum(path.stat().st_size for path in (tmp_path / "a").rglob("*.*")) < 20_000


def test_saving_and_loading_take_no_second_copy_of_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_store, "CHUNK_ROWS", 8_192)
    space = spaces.Box(-1, 1, (64,), np.float32)
    buffer, again = (ReplayBuffer(40_000, space, ACTION, device="cpu") for _ in range(2))
    buffer.observations[:] = 1.5
    buffer.pos, buffer.full = 7, True
    tracemalloc.start()
    save(buffer, tmp_path / "a", 40_007)
    load_buffer(again, tmp_path / "a" / "replay")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert buffer.observations.nbytes > 10_000_000
    assert peak < 1_000_000
    assert_equal(buffer, again)
