"""What every model registry must do. Subclass it and give `registry` and `bundle`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlplatform import names
from rlplatform.errors import BundleError, ModelNotFound, RegistryError
from rlplatform.policy.registry import CHAMPION, ModelRegistry
from rlplatform.policy.runtime import PolicyRuntime

MakeBundle = Callable[..., Path]

BAD_NAMES = ["", ".", "..", "../up", "a/b", "a\\b", "/etc", "A", "-a", ".a", "a b", "a\n", "a@1", "ä", "x" * 65, "a\0"]


class RegistryContract:
    """The behaviour that `rlplatform.policy.registry` promises."""

    def test_versions_are_numbered_from_one_and_resolve(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        first = registry.publish("cartpole", make_bundle(weight=1.0))
        second = registry.publish("cartpole", make_bundle(weight=-1.0))
        assert (first.number, second.number) == (1, 2)
        assert registry.resolve("cartpole@1") == first
        assert registry.resolve("cartpole") == second
        assert registry.versions("cartpole") == (first, second)
        assert PolicyRuntime.load(first.bundle_path).predict([1.0]).action == 0
        assert PolicyRuntime.load(second.bundle_path).predict([1.0]).action == 1

    def test_an_alias_moves_and_a_bare_name_is_the_champion(
        self, registry: ModelRegistry, make_bundle: MakeBundle
    ) -> None:
        for _ in range(3):
            registry.publish("m", make_bundle())
        registry.set_alias("m", CHAMPION, 1)
        registry.set_alias("m", "canary", 3)
        assert registry.resolve("m").number == 1
        assert registry.resolve("m@canary").number == 3
        registry.set_alias("m", CHAMPION, 2)
        assert registry.resolve("m@champion").number == 2
        assert registry.model("m").aliases == {"canary": 3, "champion": 2}
        registry.remove_alias("m", CHAMPION)
        assert registry.resolve("m").number == 3
        with pytest.raises(ModelNotFound, match=r"no alias 'champion'. It has canary"):
            registry.resolve("m@champion")
        with pytest.raises(ModelNotFound, match="no alias 'champion'"):
            registry.remove_alias("m", CHAMPION)

    def test_models_are_listed_by_name(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        assert registry.models() == ()
        for name in ("b", "a", "b"):
            registry.publish(name, make_bundle())
        assert [(model.name, model.versions) for model in registry.models()] == [("a", (1,)), ("b", (1, 2))]

    def test_a_deleted_number_is_not_given_again(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        for _ in range(2):
            registry.publish("m", make_bundle())
        registry.delete_version("m", 2)
        with pytest.raises(ModelNotFound, match=r"no version 2. It has 1"):
            registry.resolve("m@2")
        assert registry.publish("m", make_bundle()).number == 3

    def test_a_version_with_an_alias_is_not_deleted(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        registry.publish("m", make_bundle())
        registry.set_alias("m", CHAMPION, 1)
        with pytest.raises(RegistryError, match="'champion' points at it"):
            registry.delete_version("m", 1)
        registry.remove_alias("m", CHAMPION)
        registry.delete_version("m", 1)
        with pytest.raises(ModelNotFound, match="no versions"):
            registry.resolve("m")

    def test_a_deleted_model_is_gone(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        registry.publish("m", make_bundle())
        registry.delete_model("m")
        assert registry.models() == ()
        for lost in (lambda: registry.model("m"), lambda: registry.delete_model("m"), lambda: registry.versions("m")):
            with pytest.raises(ModelNotFound, match="No model 'm'"):
                lost()

    def test_a_near_name_is_suggested(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        registry.publish("cartpole", make_bundle())
        with pytest.raises(ModelNotFound, match="Did you mean 'cartpole'"):
            registry.resolve("cartpol")
        with pytest.raises(ModelNotFound, match="no version 9"):
            registry.set_alias("cartpole", CHAMPION, 9)

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_a_name_that_breaks_the_rule_is_refused_everywhere(
        self, name: str, registry: ModelRegistry, make_bundle: MakeBundle
    ) -> None:
        bundle = make_bundle()
        for use in (
            lambda: registry.publish(name, bundle),
            lambda: registry.resolve(name),
            lambda: registry.delete_model(name),
            lambda: registry.set_alias(name, CHAMPION, 1),
        ):
            with pytest.raises((RegistryError, ModelNotFound), match=r"name must be|No model"):
                use()
        assert registry.models() == ()

    @pytest.mark.parametrize("alias", ["", "1", "a/b", "..", "Champion", "a.b", "@"])
    def test_an_alias_that_breaks_the_rule_is_refused(
        self, alias: str, registry: ModelRegistry, make_bundle: MakeBundle
    ) -> None:
        registry.publish("m", make_bundle())
        with pytest.raises(RegistryError, match="An alias must be"):
            registry.set_alias("m", alias, 1)

    def test_what_stands_beside_the_bundle_comes_along(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        folder = make_bundle()
        (folder / names.MODEL_FILE).write_bytes(b"zip")
        (folder / "secret.txt").write_text("not asked for", encoding="utf-8")
        version = registry.publish("m", folder)
        assert (version.bundle_path / names.MODEL_FILE).read_bytes() == b"zip"
        assert not (version.bundle_path / "secret.txt").exists()
        registry.verify(version)

    @pytest.mark.parametrize("file", [names.MODEL_FILE, names.BUNDLE_ONNX_FILE, names.BUNDLE_JSON_FILE])
    def test_a_changed_file_is_named(self, file: str, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        folder = make_bundle()
        (folder / names.MODEL_FILE).write_bytes(b"zip")
        version = registry.publish("m", folder)
        path = version.bundle_path / file
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(BundleError, match=f"{file} of m@1 has changed"):
            registry.verify(version)
        path.unlink()
        with pytest.raises(BundleError, match=f"{file} of m@1 is missing"):
            registry.verify(version)

    def test_a_damaged_bundle_is_not_published(self, registry: ModelRegistry, make_bundle: MakeBundle) -> None:
        folder = make_bundle()
        (folder / names.BUNDLE_ONNX_FILE).write_bytes(b"")
        with pytest.raises(BundleError, match="is damaged"):
            registry.publish("m", folder)
        assert registry.models() == ()

    def test_publishers_at_once_get_numbers_of_their_own(
        self, registry: ModelRegistry, make_bundle: MakeBundle
    ) -> None:
        folder = make_bundle()
        numbers: list[int] = []
        threads = [
            threading.Thread(target=lambda: numbers.append(registry.publish("m", folder).number)) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == [1, 2, 3, 4, 5]
        assert registry.model("m").versions == (1, 2, 3, 4, 5)
