"""What a registry in a database must do besides the contract of every registry."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from unittest import mock

import pytest
from sqlalchemy import Connection

from rlplatform import names
from rlplatform.errors import Conflict, ModelNotFound, RegistryError, StorageError, StoreError
from rlplatform.policy.promotion import PromotionRule
from rlplatform.policy.registry import CHAMPION
from rlplatform.policy.version_folder import version_path
from rlplatform.store.database import Database
from rlplatform.store.deployments import Deployment, DeploymentStore
from rlplatform.store.registry import DatabaseRegistry
from rlplatform.store.tables import now
from tests.unit.policy.bundles import write_bundle
from tests.unit.policy.registry_contract import MakeBundle, RegistryContract


def evaluated(mean: float) -> dict[str, float]:
    return {names.EVAL_RETURN_MEAN: mean, names.EVAL_RETURN_STD: 10.0, names.EVAL_N_EPISODES: 100.0}


def folders(root: Path) -> set[str]:
    """Return every version folder, and whatever else lies where they lie."""
    return {str(path.relative_to(root)) for path in (*root.glob("*/versions/*"), *root.glob(".[!l]*"))}


def _publish_and_die(database_url: str, root: Path, bundle: Path) -> None:
    def die(_: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch("rlplatform.store.registry.sync_folder", die):  # The last step before the commit.
        DatabaseRegistry(Database(database_url), root).publish("m", bundle)


def _publish(database_url: str, root: Path, bundle: Path) -> None:
    DatabaseRegistry(Database(database_url), root).publish("m", bundle)


class DatabaseRegistryContract(RegistryContract):
    """The behaviour of `DatabaseRegistry`."""

    @pytest.fixture
    def registry(self, tmp_path: Path, database: Database) -> DatabaseRegistry:
        return DatabaseRegistry(database, tmp_path / "home" / "models")

    @pytest.fixture
    def make_bundle(self, tmp_path: Path) -> MakeBundle:
        numbers = itertools.count()

        def make(*, weight: float = 1.0, metrics: dict[str, float] | None = None) -> Path:
            return write_bundle(tmp_path / f"bundle{next(numbers)}", weight=weight, metrics=metrics)

        return make

    def test_a_publisher_killed_before_its_commit_leaves_no_version(
        self, registry: DatabaseRegistry, database_url: str, make_bundle: MakeBundle
    ) -> None:
        registry.publish("m", make_bundle())
        process = multiprocessing.get_context("fork").Process(
            target=_publish_and_die, args=(database_url, registry.root, make_bundle(weight=-1.0))
        )
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert version_path(registry.root, "m", 2).is_dir()
        assert registry.model("m").versions == (1,)
        registry.sweep()
        assert folders(registry.root) == {"m/versions/000001"}
        assert registry.publish("m", make_bundle()).number == 2

    def test_processes_that_publish_at_once_get_numbers_of_their_own(
        self, registry: DatabaseRegistry, database_url: str, make_bundle: MakeBundle
    ) -> None:
        arguments = (database_url, registry.root, make_bundle())
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=_publish, args=arguments) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert registry.model("m").versions == (1, 2, 3)

    def test_a_folder_that_a_kill_left_gives_way(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        left = version_path(registry.root, "m", 1)
        left.mkdir(parents=True)
        (left / "policy.onnx").write_bytes(b"of another")
        registry.verify(registry.publish("m", make_bundle()))

    def test_a_bundle_that_never_came_in_is_swept_when_it_is_old(
        self, registry: DatabaseRegistry, make_bundle: MakeBundle
    ) -> None:
        registry.publish("m", make_bundle())
        old, young = registry.root / ".publishing-1", registry.root / ".publishing-2"
        for staged in (old, young):
            staged.mkdir()
        os.utime(old, (0, 0))
        registry.sweep()
        assert folders(registry.root) == {"m/versions/000001", ".publishing-2"}

    def test_publishing_that_fails_leaves_nothing(
        self, registry: DatabaseRegistry, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> NoReturn:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("rlplatform.store.registry.os.rename", full)
        with pytest.raises(StorageError, match="No space left"):
            registry.publish("m", make_bundle())
        assert registry.models() == ()
        assert folders(registry.root) == set()

    def test_a_deletion_that_fails_leaves_the_version_whole(
        self, registry: DatabaseRegistry, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version = registry.publish("m", make_bundle())

        @contextmanager
        def begin(database: Database) -> Iterator[Connection]:
            with really(database) as connection:
                yield connection
                raise StoreError("the commit failed")

        really = Database.begin
        with monkeypatch.context() as patch:
            patch.setattr(Database, "begin", begin)
            with pytest.raises(StoreError, match="the commit failed"):
                registry.delete_version("m", 1)
            with pytest.raises(StoreError, match="the commit failed"):
                registry.delete_model("m")
        registry.verify(version)
        assert registry.resolve("m") == version

    def test_deleting_again_after_a_kill_works(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        for name in ("m", "n"):
            registry.publish(name, make_bundle())
            registry.publish(name, make_bundle())
        shutil.rmtree(version_path(registry.root, "m", 1))
        registry.delete_version("m", 1)
        shutil.rmtree(registry.root / "n")
        registry.delete_model("n")
        assert [(model.name, model.versions) for model in registry.models()] == [("m", (2,))]

    def test_a_deleted_model_goes_on_counting(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        registry.publish("m", make_bundle())
        registry.set_alias("m", CHAMPION, 1)
        registry.delete_model("m")
        assert not (registry.root / "m").exists()
        assert registry.publish("m", make_bundle()).reference == "m@2"
        assert registry.model("m").aliases == {}
        with pytest.raises(ModelNotFound, match="no version 1"):
            registry.resolve("m@1")

    def test_sweeping_leaves_what_belongs(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        versions = [registry.publish(name, make_bundle()) for name in ("a", "a", "b")]
        registry.sweep()
        for version in versions:
            registry.verify(version)

    def test_promotions_are_kept_with_their_reasons(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        for mean in (100.0, 99.0, 120.0):
            registry.publish("m", make_bundle(metrics=evaluated(mean)))
        decisions = [registry.promote(f"m@{number}", actor="k1") for number in (1, 2, 3)]
        assert [decision.promote for decision in decisions] == [True, False, True]
        assert registry.resolve("m").number == 3
        kept = registry.promotions("m")
        assert [(one.number, one.promoted, one.actor, one.alias) for one in kept] == [
            (3, True, "k1", CHAMPION),
            (2, False, "k1", CHAMPION),
            (1, True, "k1", CHAMPION),
        ]
        assert [one.reason for one in kept] == [decision.reason for decision in reversed(decisions)]
        strict = registry.promote("m@2", PromotionRule(min_return=1000.0), alias="canary")
        assert "is asked for" in strict.reason
        with pytest.raises(RegistryError, match="A candidate must be one version"):
            registry.promote("m")
        with pytest.raises(RegistryError, match="An alias must be"):
            registry.promote("m@1", alias="../x")

    def test_of_promotions_at_once_the_best_wins(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        for mean in (100.0, 200.0, 300.0):
            registry.publish("m", make_bundle(metrics=evaluated(mean)))
        threads = [threading.Thread(target=registry.promote, args=(f"m@{number}",)) for number in (3, 2, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert registry.resolve("m").number == 3
        assert len(registry.promotions("m")) == 3

    def test_the_version_that_is_deployed_stays(
        self, registry: DatabaseRegistry, database: Database, make_bundle: MakeBundle
    ) -> None:
        for _ in range(2):
            registry.publish("m", make_bundle())
        DeploymentStore(database).put(Deployment("m", "m@1", 1, 1.0, now()))
        with pytest.raises(Conflict, match="DELETE /api/v1/models/m/deploy"):
            registry.delete_version("m", 1)
        registry.verify(registry.resolve("m@1"))
        registry.delete_version("m", 2)

    def test_versions_are_found_by_the_run_they_came_from(
        self, registry: DatabaseRegistry, make_bundle: MakeBundle
    ) -> None:
        folder = make_bundle()
        path = folder / names.BUNDLE_JSON_FILE
        path.write_text(path.read_text(encoding="utf-8").replace('"run_id":null', '"run_id":"run-7"'), encoding="utf-8")
        found = registry.publish("m", folder)
        registry.publish("m", make_bundle())
        assert found.manifest.lineage.run_id == "run-7"
        assert registry.versions_of_run("run-7") == (found,)

    def test_a_version_deleted_meanwhile_is_said(self, registry: DatabaseRegistry, make_bundle: MakeBundle) -> None:
        version = registry.publish("m", make_bundle())
        registry.delete_version("m", 1)
        with pytest.raises(ModelNotFound, match="has been deleted"):
            registry.verify(version)

    def test_another_process_sees_what_is_published(
        self, registry: DatabaseRegistry, database: Database, make_bundle: MakeBundle
    ) -> None:
        version = registry.publish("m", make_bundle())
        assert DatabaseRegistry(database, registry.root).resolve("m@1") == version
