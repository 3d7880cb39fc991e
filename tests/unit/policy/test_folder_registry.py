"""The folder registry keeps the contract, and its folders survive kills."""

from __future__ import annotations

import itertools
import multiprocessing
from pathlib import Path

import pytest

from rlplatform.errors import RegistryError, StorageError
from rlplatform.policy.folder_registry import FolderRegistry
from tests.unit.policy.bundles import write_bundle
from tests.unit.policy.registry_contract import MakeBundle, RegistryContract


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "home" / "models")


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    numbers = itertools.count()

    def make(*, weight: float = 1.0, metrics: dict[str, float] | None = None) -> Path:
        return write_bundle(tmp_path / f"bundle{next(numbers)}", weight=weight, metrics=metrics)

    return make


class TestFolderRegistry(RegistryContract):
    """The contract, over folders."""


def test_what_a_killed_publisher_left_is_no_version(registry: FolderRegistry, make_bundle: MakeBundle) -> None:
    registry.publish("m", make_bundle())
    left = registry.root / "m" / "versions" / ".000002.abcd1234.tmp"
    left.mkdir()
    (left / "policy.onnx").write_bytes(b"half")
    assert registry.model("m").versions == (1,)
    assert registry.publish("m", make_bundle()).number == 2
    assert not left.exists()


def test_a_kill_before_the_index_is_written_loses_nothing(registry: FolderRegistry, make_bundle: MakeBundle) -> None:
    for _ in range(2):
        registry.publish("m", make_bundle())
    (registry.root / "m" / "aliases.json").unlink()
    registry.delete_version("m", 2)
    assert registry.publish("m", make_bundle()).number == 3


def test_a_damaged_index_is_named(registry: FolderRegistry, make_bundle: MakeBundle) -> None:
    registry.publish("m", make_bundle())
    (registry.root / "m" / "aliases.json").write_text("{", encoding="utf-8")
    with pytest.raises(RegistryError, match=r"aliases.json is damaged"):
        registry.resolve("m")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, make_bundle: MakeBundle) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="file"):
        FolderRegistry(tmp_path / "file" / "models").publish("m", make_bundle())


def _publish(root: Path, bundle: Path) -> None:
    FolderRegistry(root).publish("m", bundle)


def test_processes_that_publish_at_once_get_numbers_of_their_own(
    registry: FolderRegistry, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_publish, args=(registry.root, bundle)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert registry.model("m").versions == (1, 2, 3)
