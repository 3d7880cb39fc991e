"""What a run books, whether it fits, and what it may use of a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlplatform.cluster.resources import (
    Booking,
    GpuLimit,
    apply_gpu_limit,
    booking,
    check_fits,
    gpu_limit,
    how_many_fit,
    trial_booking,
)
from rlplatform.errors import ResourceError
from rlplatform.specs.run import ResourceSpec, RunSpec
from rlplatform.specs.search import SearchSpec


def spec(resources: dict[str, Any], **env: Any) -> RunSpec:
    return RunSpec.model_validate(
        {
            "algorithm": {"name": "ppo"},
            "env": {"id": "CartPole-v1", "n_envs": 4, **env},
            "budget": {"total_timesteps": 1},
            "resources": resources,
        }
    )


def test_a_driver_books_what_its_spec_says() -> None:
    asked = booking(spec({"cpus": 2, "gpus": 0.25, "memory_bytes": 2**30}))
    assert asked == Booking(({"CPU": 2.0, "GPU": 0.25, "memory": 2.0**30},))
    assert asked.strategy == "STRICT_PACK"
    assert str(asked) == "2 CPUs, 0.25 GPUs and 1.0 GiB of memory"


@pytest.mark.parametrize(("n_workers", "expected"), [(None, 4), (2, 2), (9, 4)])
def test_environment_workers_are_booked_with_their_driver(n_workers: int | None, expected: int) -> None:
    asked = booking(spec({"cpus": 1}, backend="ray", n_workers=n_workers))
    assert asked.bundles == ({"CPU": 1.0}, *[{"CPU": 1.0}] * expected)
    assert asked.strategy == "PACK"


def test_a_run_without_cpus_still_has_a_bundle() -> None:
    assert booking(spec({"cpus": 0})).bundles == ({"CPU": 0.001},)


def test_part_of_a_second_gpu_is_refused() -> None:
    with pytest.raises(ResourceError, match="must be at most 1 or a whole number"):
        booking(spec({"gpus": 1.5}))


def test_bundles_are_spread_over_nodes() -> None:
    workers = Booking(({"CPU": 2.0}, {"CPU": 1.0}, {"CPU": 1.0}))
    check_fits(workers, [{"CPU": 2.0}, {"CPU": 2.0}])
    with pytest.raises(ResourceError, match=r"asks for 4 CPUs and 0 GPUs \(driver 2 CPU, 2 environment workers\)"):
        check_fits(workers, [{"CPU": 2.0}, {"CPU": 1.0}])


def test_a_bundle_is_not_split_over_nodes() -> None:
    with pytest.raises(ResourceError, match=r"the cluster has 4 CPUs and 0 GPUs on 2 nodes.*--wait-for-resources"):
        check_fits(Booking(({"CPU": 3.0},)), [{"CPU": 2.0}, {"CPU": 2.0}])


@pytest.mark.parametrize(
    ("resources", "device", "fraction"),
    [
        ({"gpus": 0}, "cpu", None),
        ({"gpus": 0.25}, "cuda:0", 0.25),
        ({"gpus": 0.5, "device": "cuda:1"}, "cuda:1", 0.5),
        ({"gpus": 0.5, "device": "cpu"}, "cpu", None),
        ({"gpus": 1}, "cuda:0", None),
        ({"gpus": 2}, "cuda:0", None),
    ],
)
def test_a_share_of_a_gpu_is_a_share_of_its_memory(resources: Any, device: str, fraction: float | None) -> None:
    limit = gpu_limit(ResourceSpec(**resources))
    assert (limit.device, limit.fraction) == (device, fraction)


def test_the_cap_is_set_on_the_booked_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *arguments: calls.append(arguments))
    apply_gpu_limit(GpuLimit("cuda:0", 0.25, ""))
    apply_gpu_limit(GpuLimit("cuda:0", None, ""))
    assert calls == [(0.25, torch.device("cuda:0"))]


# --- trials of a search -----------------------------------------------------------------------------------------------


def search(resources: dict[str, Any], *, seeds: int = 1, env: dict[str, Any] | None = None) -> SearchSpec:
    return SearchSpec.model_validate(
        {
            "run": spec(resources, **(env or {})),
            "space": {"algorithm.gamma": {"type": "uniform", "low": 0.9, "high": 1.0}},
            "objective": {"seeds": list(range(seeds))},
        }
    )


def test_the_seeds_of_a_trial_share_its_driver_but_not_memory_and_workers() -> None:
    asked = trial_booking(search({"cpus": 1, "gpus": 0.5, "memory_bytes": 10}, seeds=3, env={"backend": "ray"}))
    assert asked.bundles == ({"CPU": 1.0, "GPU": 0.5, "memory": 30.0}, *[{"CPU": 1.0}] * 12)


@pytest.mark.parametrize(
    ("resources", "nodes", "expected"),
    [
        ({"cpus": 1}, [{"CPU": 2.0}, {"CPU": 3.0}], 5),
        ({"cpus": 2}, [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        ({"cpus": 4}, [{"CPU": 2.0}], 0),
        ({"cpus": 1, "memory_bytes": 4}, [{"CPU": 8.0, "memory": 10.0}], 2),
        ({"cpus": 1, "gpus": 0.125}, [{"CPU": 16.0, "GPU": 1.0}], 8),
        ({"cpus": 1, "gpus": 0.1}, [{"CPU": 16.0, "GPU": 1.0}], 10),
        ({"cpus": 1, "gpus": 0.4}, [{"CPU": 16.0, "GPU": 2.0}], 4),
        ({"cpus": 1, "gpus": 0.6}, [{"CPU": 16.0, "GPU": 2.0}], 2),
        ({"cpus": 0}, [{"CPU": 1.0}], 1000),
    ],
)
def test_so_many_trials_fit(resources: dict[str, Any], nodes: list[dict[str, float]], expected: int) -> None:
    assert how_many_fit(trial_booking(search(resources)), nodes) == expected
