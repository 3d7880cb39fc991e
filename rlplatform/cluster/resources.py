"""What a run or a search's trial books, whether it fits, and the GPU memory that goes with a share of a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal

from rlplatform.errors import ResourceError
from rlplatform.specs.run import ResourceSpec, RunSpec
from rlplatform.specs.search import SearchSpec

CPU, GPU, MEMORY = "CPU", "GPU", "memory"
CPUS_PER_WORKER = 1.0
MOST = 1024
"""Most bookings that are counted."""
SMALLEST = 0.001
"""A bundle may not be empty; a run that asks for no CPU books this much of one."""


@dataclass(frozen=True)
class Booking:
    """The placement group of a run: its driver's bundle, then one for each environment worker."""

    bundles: tuple[Mapping[str, float], ...]

    @property
    def strategy(self) -> Literal["STRICT_PACK", "PACK"]:
        """A driver alone sits on one node; its workers sit beside it where there is room."""
        return "STRICT_PACK" if len(self.bundles) == 1 else "PACK"

    def total(self, resource: str) -> float:
        """Return the sum of a resource over all bundles."""
        return sum(bundle.get(resource, 0.0) for bundle in self.bundles)

    def __str__(self) -> str:
        text = _total(self)
        workers = len(self.bundles) - 1
        driver = f"driver {self.bundles[0].get(CPU, 0):g} CPU, {workers} environment workers"
        return f"{text} ({driver})" if workers else text


@dataclass(frozen=True)
class GpuLimit:
    """Where a run's networks live, and how much of that GPU's memory it may use."""

    device: str
    fraction: float | None
    """Share of the GPU's memory, in (0, 1). None: all of it, or no GPU."""
    reason: str


def booking(spec: RunSpec) -> Booking:
    """Return what a run books with Ray; its `env` must be resolved.

    Raises:
        ResourceError: More than one GPU is asked for, and not a whole number.
    """
    asked = spec.resources
    if asked.gpus > 1 and asked.gpus != int(asked.gpus):
        raise ResourceError(f"`resources.gpus` must be at most 1 or a whole number, got {asked.gpus:g}.")
    driver = {CPU: asked.cpus, GPU: asked.gpus, MEMORY: float(asked.memory_bytes or 0)}
    driver = {name: amount for name, amount in driver.items() if amount} or {CPU: SMALLEST}
    workers = min(spec.env.n_workers or spec.env.n_envs, spec.env.n_envs) if spec.env.backend == "ray" else 0
    return Booking((driver, *({CPU: CPUS_PER_WORKER} for _ in range(workers))))


def check_fits(asked: Booking, nodes: Sequence[Mapping[str, float]], what: str = "The run") -> None:
    """Check that a booking fits into the nodes when nothing else runs on them.

    Args:
        asked: What is booked.
        nodes: Total resources of each living node.
        what: Who asks, for the message.

    Raises:
        ResourceError: It never fits into what is there.
    """
    if not _place(asked, [dict(node) for node in nodes]):
        raise ResourceError(
            f"{what} asks for {asked}; the cluster has {describe(nodes, memory=asked.total(MEMORY) > 0)}. Ask for "
            "less with `resources.cpus`, `resources.gpus`, `resources.memory_bytes` or `env.n_workers`, add nodes, or "
            "wait for them with `--wait-for-resources`."
        )


def trial_booking(search: SearchSpec) -> Booking:
    """Return what one trial books: one driver trains all its seeds, each with its own memory and environment workers.

    Args:
        search: A search whose run's `env` is resolved.

    Raises:
        ResourceError: More than one GPU is asked for, and not a whole number.
    """
    driver, *workers = booking(search.run).bundles
    seeds = len(search.seeds)
    driver = {name: amount * seeds if name == MEMORY else amount for name, amount in driver.items()}
    return Booking((driver, *workers * seeds))


def how_many_fit(asked: Booking, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many bookings of one kind fit into the nodes together when nothing else runs on them."""
    free = [dict(node) for node in nodes]
    # What is booked in thousandths can be booked a thousand times on one CPU; nobody trains that many at once.
    return next((number for number in range(MOST) if not _place(asked, free)), MOST)


def _place(asked: Booking, free: list[dict[str, float]]) -> bool:
    """Take a booking out of what is free, bundle by bundle; return whether all of it fits."""
    # The largest first: then first-fit fails on no booking that matters here (workers are all alike).
    for bundle in sorted(asked.bundles, key=lambda part: -sum(part.values())):
        needed = {name: _whole_share(amount) if name == GPU else amount for name, amount in bundle.items()}
        fitting = (node for node in free if all(node.get(name, 0.0) >= needed[name] - 1e-6 for name in needed))
        home = next(fitting, None)
        if home is None:
            return False
        for name, amount in needed.items():
            home[name] = home.get(name, 0.0) - amount
    return True


def _whole_share(gpus: float) -> float:
    """Return how much of a node's GPUs a share takes: 0.4 takes a half, because two such shares fill a GPU."""
    return gpus if gpus >= 1 else 1 / floor(1 / gpus + 1e-6)


def describe(nodes: Sequence[Mapping[str, float]], memory: bool = True) -> str:
    """Return what nodes have together, in words; their memory only if asked for."""
    cpus, gpus, memory_bytes = (sum(node.get(name, 0.0) for node in nodes) for name in (CPU, GPU, MEMORY))
    total = _amounts(cpus, gpus, memory_bytes if memory else 0.0)
    return f"{total} on {len(nodes)} node{'' if len(nodes) == 1 else 's'}"


def gpu_limit(resources: ResourceSpec) -> GpuLimit:
    """Decide a run's device and memory cap from what it booked."""
    if resources.gpus == 0:
        # Ray shows an actor without a GPU every GPU of the node, so the CPU must be said.
        return GpuLimit("cpu" if resources.device == "auto" else resources.device, None, "no GPU is booked")
    # Ray shows the actor only what it booked, so the first visible GPU is the booked one.
    device = "cuda:0" if resources.device in {"auto", "cuda"} else resources.device
    if resources.gpus < 1 and device.startswith("cuda"):
        return GpuLimit(device, resources.gpus, f"{resources.gpus:g} of a GPU is booked")
    return GpuLimit(device, None, "whole GPUs are booked")


def apply_gpu_limit(limit: GpuLimit) -> None:
    """Cap this process's share of the GPU's memory; a run that asks for more gets torch's OutOfMemoryError."""
    if limit.fraction is None:
        return
    import torch  # two seconds, and only a run with a share of a GPU needs it here

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(limit.fraction, torch.device(limit.device))


def _total(asked: Booking) -> str:
    return _amounts(asked.total(CPU), asked.total(GPU), asked.total(MEMORY))


def _amounts(cpus: float, gpus: float, memory_bytes: float) -> str:
    cpu, gpu = f"{cpus:g} CPU{'' if cpus == 1 else 's'}", f"{gpus:g} GPU{'' if gpus == 1 else 's'}"
    return f"{cpu}, {gpu} and {memory_bytes / 2**30:.1f} GiB of memory" if memory_bytes else f"{cpu} and {gpu}"
