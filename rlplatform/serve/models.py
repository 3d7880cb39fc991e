"""The models that one replica holds in memory.

    reference ──(looked up at most MAX_AGE_S ago)──▶ version ──(loaded once, in a thread)──▶ LoadedModel

`current` is the hot path: a dictionary and a clock. A look-up older than half of `MAX_AGE_S` is repeated in the
background, one that is older than `MAX_AGE_S` is waited for; so an alias that moves is followed within that time, and
no request fails for it. A registry that cannot be reached, or a new version that cannot be loaded, changes nothing:
what answered before goes on answering, and the log says why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rlplatform.errors import ModelNotFound, ResourceError, RlPlatformError
from rlplatform.names import BUNDLE_ONNX_FILE
from rlplatform.policy.bundle import BundleManifest
from rlplatform.policy.registry import ModelRegistry, ModelVersion
from rlplatform.policy.runtime import PolicyRuntime
from rlplatform.policy.spaces import DictSpace, parts
from rlplatform.serve.answers import AnswerEncoder
from rlplatform.serve.tensors import ModelTensors

MAX_AGE_S = 1.0
"""How long after an alias has moved its old version may still answer."""
LOOP_BUDGET_S = 1e-3
"""A batch that takes longer is evaluated in a thread. Going there and back costs about a tenth of that."""
_TIMED_ROWS = 8
_BYTES_PER_GRAPH_BYTE = 2.5
_BYTES_PER_SESSION = 512 * 1024
"""Measured with onnxruntime 1.31: 27 MB for a graph of 12 MB, 0.4 MB for one of 38 kB."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class LoadedModel:
    """A version that is ready to act, with what is known about asking it."""

    def __init__(self, version: ModelVersion, *, n_threads: int = 1) -> None:
        """Load a version, and time it.

        Raises:
            BundleError: It is damaged.
        """
        self.version = version
        self.runtime = PolicyRuntime.load(version.bundle_path, n_threads=n_threads)
        manifest = self.runtime.manifest
        self.answers = AnswerEncoder(manifest)
        self.tensors = ModelTensors(manifest)
        self.bytes = needed_bytes(manifest)
        self.headers = [(b"x-model-version", version.reference.encode())]
        """Says in each answer who answered."""
        self.pins = 0
        """How many hold on to it; see `ModelCache.pinned`."""
        self._first, part = next(iter(parts(manifest.observation_space).items()))
        self._n_axes = len(part.shape)
        self.loop_rows = self._time()
        """Largest batch that is evaluated on the event loop."""

    def rows(self, observation: Any) -> int:
        """Return how many observations nested lists, as they come from JSON, hold. Their shapes are not checked."""
        if self._first and type(observation) is dict:
            observation = observation.get(self._first)
        probe, depth = observation, 0
        while type(probe) is list and probe:
            probe, depth = probe[0], depth + 1
        return len(observation) if depth > self._n_axes else 1

    def _time(self) -> int:
        space = self.runtime.manifest.observation_space
        zeros = {key: np.zeros((_TIMED_ROWS, *part.shape), part.dtype) for key, part in parts(space).items()}
        obs = zeros if isinstance(space, DictSpace) else zeros[""]
        seconds = []
        for _ in range(4):  # The first one warms up.
            start = time.perf_counter()
            self.runtime.predict(obs)
            seconds.append(time.perf_counter() - start)
        return int(_TIMED_ROWS * LOOP_BUDGET_S / min(seconds))


@dataclass(frozen=True)
class _LookUp:
    version: str
    """Its reference, which never means another one, also if the model is deleted and made anew."""
    asked_at: float


class ModelCache:
    """Versions by least recent use, bounded in memory. To be used from one event loop."""

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        max_bytes: int = 512 * 2**20,
        max_age_s: float = MAX_AGE_S,
        n_threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load nothing yet.

        Args:
            registry: Where models are published.
            max_bytes: Memory of all loaded models together, estimated from the size of their graphs.
            max_age_s: How long a look-up in the registry is good for.
            n_threads: Threads of one evaluation.
            clock: Seconds that never go back.
        """
        self._registry = registry
        self._max_bytes = max_bytes
        self._max_age_s, self._fresh_s = max_age_s, max_age_s / 2
        self._n_threads = n_threads
        self._clock = clock
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._look_ups: dict[str, _LookUp] = {}
        self._looking_up: dict[str, asyncio.Task[LoadedModel]] = {}
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._reserved_bytes = 0
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="models")

    def current(self, reference: str) -> LoadedModel | None:
        """Return the model that answers for a reference, or None where `get` has to be awaited."""
        look_up = self._look_ups.get(reference)
        if look_up is None:
            return None
        model = self._loaded.get(look_up.version)
        if model is None:
            return None
        age = self._clock() - look_up.asked_at
        if age > self._fresh_s:
            if age > self._max_age_s:
                return None
            self._look_up(reference)
        self._loaded.move_to_end(look_up.version)
        return model

    async def get(self, reference: str) -> LoadedModel:
        """Return the model that `name`, `name@alias` or `name@number` stands for, loaded.

        Raises:
            ModelNotFound: There is none.
            RegistryError: The reference cannot be read, or the version is damaged.
            ResourceError: It does not fit into the memory.
        """
        model = self.current(reference)
        if model is None:
            # Shielded: others wait for the same look-up, and this request may be cancelled.
            model = await asyncio.shield(self._look_up(reference))
        return model

    @contextmanager
    def pinned(self, model: LoadedModel) -> Iterator[None]:
        """Keep a model from being evicted while it is held on to over many calls."""
        model.pins += 1
        try:
            yield
        finally:
            model.pins -= 1

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Return what is in memory, least recently used first."""
        return tuple(self._loaded.values())

    def forget(self, name: str) -> None:
        """Drop a model's versions at once, as when it is deleted; calls under way end with what they have."""
        self._look_ups = {ref: found for ref, found in self._look_ups.items() if ref.partition("@")[0] != name}
        for key in [key for key, model in self._loaded.items() if model.version.name == name]:
            del self._loaded[key]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, reference: str) -> asyncio.Task[LoadedModel]:
        return _once(self._looking_up, reference, lambda: self._resolve(reference))

    async def _resolve(self, reference: str) -> LoadedModel:
        try:
            for _ in range(2):
                asked_at = self._clock()
                version = await self._in_thread(lambda: self._registry.resolve(reference))
                model = await self._load(version)
                if self._clock() - asked_at < self._max_age_s:
                    break  # Else loading took so long that the alias may have moved on.
        except ModelNotFound:
            self._look_ups.pop(reference, None)
            raise
        except RlPlatformError as error:
            before = self._look_ups.get(reference)
            serving = self._loaded.get(before.version) if before else None
            if serving is None:
                raise
            _log.warning("%s still answers for %s: %s", serving.version.reference, reference, error)
            self._look_ups[reference] = _LookUp(serving.version.reference, self._clock())
            return serving
        self._look_ups[reference] = _LookUp(version.reference, asked_at)
        return model

    async def _load(self, version: ModelVersion) -> LoadedModel:
        model = self._loaded.get(version.reference)
        if model is not None:
            return model
        return await asyncio.shield(_once(self._loading, version.reference, lambda: self._load_new(version)))

    async def _load_new(self, version: ModelVersion) -> LoadedModel:
        needed = needed_bytes(version.manifest)
        self._make_room(version.reference, needed)
        self._reserved_bytes += needed
        try:
            start = self._clock()
            model = await self._in_thread(lambda: LoadedModel(version, n_threads=self._n_threads))
        finally:
            self._reserved_bytes -= needed
        _log.info("Loaded %s in %.2f s.", version.reference, self._clock() - start)
        self._loaded[version.reference] = model
        return model

    def _make_room(self, reference: str, needed: int) -> None:
        left = self._max_bytes - self._reserved_bytes - sum(model.bytes for model in self._loaded.values())
        for key, model in list(self._loaded.items()):
            if left >= needed:
                break
            if not model.pins:
                del self._loaded[key]
                left += model.bytes
                _log.info("Dropped %s to make room for %s.", model.version.reference, reference)
        if left < needed:
            raise ResourceError(
                f"{reference} needs about {needed / 2**20:.0f} MiB of memory, but only {max(left, 0) / 2**20:.0f} of "
                f"{self._max_bytes / 2**20:.0f} are free for models. Raise the limit, or try again later."
            )

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def needed_bytes(manifest: BundleManifest) -> int:
    """Return about how much memory a policy takes when it is loaded."""
    return int(_BYTES_PER_GRAPH_BYTE * manifest.files[BUNDLE_ONNX_FILE].bytes) + _BYTES_PER_SESSION


def _once(
    under_way: dict[str, asyncio.Task[LoadedModel]], key: str, start: Callable[[], Any]
) -> asyncio.Task[LoadedModel]:
    """Return the task under way for `key`, or start it."""
    task = under_way.get(key)
    if task is None:
        task = under_way[key] = asyncio.get_running_loop().create_task(start())

        def ended(done: asyncio.Task[LoadedModel]) -> None:
            under_way.pop(key, None)
            if not done.cancelled():
                done.exception()  # Perhaps nobody waited for it.

        task.add_done_callback(ended)
    return task
