"""The cache of models: what it looks up, what it loads, what it keeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rlplatform.errors import ModelNotFound, ResourceError, StorageError
from rlplatform.policy.registry import ModelVersion
from rlplatform.policy.runtime import PolicyRuntime
from rlplatform.serve.models import ModelCache, needed_bytes
from rlplatform.store.registry import DatabaseRegistry
from tests.unit.serve.policies import registry_of, write_policy

T = TypeVar("T")


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class WatchedRegistry:
    """Counts look-ups, and fails where told to."""

    def __init__(self, registry: DatabaseRegistry) -> None:
        self.inner = registry
        self.look_ups = 0
        self.failing: Exception | None = None

    def resolve(self, reference: str) -> ModelVersion:
        self.look_ups += 1
        if self.failing is not None:
            raise self.failing
        return self.inner.resolve(reference)


@pytest.fixture
def registry(tmp_path: Path) -> WatchedRegistry:
    inner = registry_of(tmp_path, a={"value": 1.0}, b={"value": 2.0})
    inner.publish("a", write_policy(tmp_path / "second", value=1.5))
    inner.set_alias("a", "champion", 1)
    return WatchedRegistry(inner)


def with_cache(registry: Any, talk: Callable[[ModelCache, Clock], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        clock = Clock()
        cache = ModelCache(registry, clock=clock, **options)
        try:
            return await talk(cache, clock)
        finally:
            cache.close()

    return asyncio.run(main())


async def settle() -> None:
    """Let what runs in the background come to its end."""
    while tasks := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        await asyncio.wait(tasks)


def test_a_fresh_look_up_is_not_repeated(registry: WatchedRegistry) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        first = await cache.get("a")
        clock.now += 0.4
        assert cache.current("a") is first
        await settle()
        assert registry.look_ups == 1

    with_cache(registry, talk)


def test_an_older_one_is_repeated_behind_the_answer(registry: WatchedRegistry) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        await cache.get("a")
        registry.inner.set_alias("a", "champion", 2)
        clock.now += 0.6
        answers = [cache.current("a") for _ in range(3)]
        assert [model.version.number for model in answers if model] == [1, 1, 1]
        await settle()
        assert registry.look_ups == 2
        assert (await cache.get("a")).version.number == 2

    with_cache(registry, talk)


def test_a_move_is_seen_after_a_second_at_the_latest(registry: WatchedRegistry) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        await cache.get("a")
        registry.inner.set_alias("a", "champion", 2)
        clock.now += 1.01
        assert cache.current("a") is None
        assert (await cache.get("a")).version.number == 2

    with_cache(registry, talk)


def test_a_model_that_is_deleted_and_made_anew_is_loaded_anew(registry: WatchedRegistry, tmp_path: Path) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        before = await cache.get("b")
        registry.inner.delete_model("b")
        clock.now += 2
        with pytest.raises(ModelNotFound, match="No model 'b'"):
            await cache.get("b")
        registry.inner.publish("b", write_policy(tmp_path / "new", value=7.0))
        after = await cache.get("b")
        assert (before.version.reference, after.version.reference) == ("b@1", "b@2")
        assert after.runtime.predict([0.0] * 4).value == 7.0

    with_cache(registry, talk)


def test_forgetting_a_model_drops_it_at_once(registry: WatchedRegistry) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        await asyncio.gather(cache.get("a"), cache.get("b"))
        cache.forget("b")
        assert [model.version.reference for model in cache.loaded()] == ["a@1"]
        assert cache.current("b") is None

    with_cache(registry, talk)


def test_a_registry_that_cannot_be_reached_stops_no_answer(registry: WatchedRegistry) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        first = await cache.get("a")
        registry.failing = StorageError("The disk is away.")
        clock.now += 5
        assert await cache.get("a") is first
        with pytest.raises(StorageError, match="The disk is away"):
            await cache.get("b")
        registry.failing = None
        registry.inner.set_alias("a", "champion", 2)
        clock.now += 2
        assert (await cache.get("a")).version.number == 2

    with_cache(registry, talk)


def test_a_damaged_new_version_leaves_the_old_one_answering(registry: WatchedRegistry) -> None:
    async def talk(cache: ModelCache, clock: Clock) -> None:
        first = await cache.get("a")
        path = registry.inner.resolve("a@2").bundle_path / "policy.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        registry.inner.set_alias("a", "champion", 2)
        clock.now += 2
        assert await cache.get("a") is first

    with_cache(registry, talk)


def test_many_who_wait_cause_one_load(registry: WatchedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = PolicyRuntime.load

    def counted(path: Path, **options: Any) -> PolicyRuntime:
        loads.append(threading.current_thread().name)
        return load(path, **options)

    monkeypatch.setattr(PolicyRuntime, "load", counted)

    async def talk(cache: ModelCache, clock: Clock) -> None:
        models = await asyncio.gather(*(cache.get(name) for name in ("a", "a", "a@1", "a@champion") * 5))
        assert len(set(models)) == 1

    with_cache(registry, talk)
    assert len(loads) == 1
    assert loads[0].startswith("models")  # Not on the event loop.


def test_the_least_recently_used_one_makes_room(registry: WatchedRegistry) -> None:
    one = needed_bytes(registry.inner.resolve("a").manifest)

    async def talk(cache: ModelCache, clock: Clock) -> None:
        await cache.get("a@1")
        await cache.get("b")
        cache.current("a@1")
        await cache.get("a@2")
        assert [model.version.reference for model in cache.loaded()] == ["a@1", "a@2"]

    with_cache(registry, talk, max_bytes=int(2.5 * one))


def test_one_that_is_held_is_not_dropped(registry: WatchedRegistry) -> None:
    one = needed_bytes(registry.inner.resolve("a").manifest)

    async def talk(cache: ModelCache, clock: Clock) -> None:
        held = await cache.get("a")
        with cache.pinned(held), pytest.raises(ResourceError, match=r"b@1 needs about .* MiB of memory"):
            await cache.get("b")
        assert cache.loaded() == (held,)
        assert (await cache.get("b")).version.reference == "b@1"

    with_cache(registry, talk, max_bytes=int(1.5 * one))


def test_what_is_loading_counts_as_memory(registry: WatchedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    one = needed_bytes(registry.inner.resolve("a").manifest)
    begun, may_end, load = threading.Event(), threading.Event(), PolicyRuntime.load

    def slow(path: Path, **options: Any) -> PolicyRuntime:
        begun.set()
        may_end.wait(60)
        return load(path, **options)

    monkeypatch.setattr(PolicyRuntime, "load", slow)

    async def talk(cache: ModelCache, clock: Clock) -> None:
        first = asyncio.ensure_future(cache.get("a"))
        await asyncio.to_thread(begun.wait)
        with pytest.raises(ResourceError, match="are free for models"):
            await cache.get("b")
        may_end.set()
        model = await first
        assert cache.loaded() == (model,)

    with_cache(registry, talk, max_bytes=int(1.5 * one))
