"""Checks of an installation: each says what it found, and what to do where that is not good."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from rlplatform.errors import RlPlatformError

Status = Literal["ok", "warning", "failed"]

MIN_FREE_BYTES = 2 * 10**9
MIN_OPEN_FILES = 4096
"""Below this, Ray and many environment processes run out of file descriptors."""
MIN_SHARED_BYTES = 10**9
"""Ray's object store falls back to slow disk files below about this much of /dev/shm."""

OPTIONAL = {
    "envpool": ("env.backend: envpool", "pip install envpool"),
    "wandb": ("rlplatform train --wandb", "pip install wandb"),
    "ale_py": ("Atari environments", 'pip install "gymnasium[atari]"'),
    "mujoco": ("MuJoCo environments", 'pip install "gymnasium[mujoco]"'),
}
"""Module → what needs it, and how to get it."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    advice: str = ""
    """What to do; empty when all is well."""


def check_installation(home: Path, *, start_ray: bool) -> Iterable[Check]:
    """Yield every check, one by one, as some take seconds.

    Args:
        home: RLPLATFORM_HOME.
        start_ray: Also start a local Ray, which takes about five seconds, and stop it again.
    """
    yield check_python()
    yield check_packages()
    yield from check_optional()
    yield check_torch()
    yield check_gpu()
    yield check_home(home)
    yield check_disk(home)
    yield check_open_files()
    yield check_shared_memory()
    if start_ray:
        yield check_ray()


def check_python() -> Check:
    """Which Python and machine this is; that it is new enough, pip saw to."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return Check("python", "ok", f"{platform.python_version()} on {machine}, {sys.executable}")


def check_packages() -> Check:
    """Whether every dependency is installed in a version that we accept."""
    problems = []
    own = version("rlplatform")
    for requirement in map(Requirement, requires("rlplatform") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if found not in requirement.specifier:
            problems.append(f"{requirement.name} is {found}, needs {requirement.specifier}")
    if problems:
        return Check("packages", "failed", "; ".join(problems), "Install again: `pip install -e . -c constraints.txt`.")
    return Check("packages", "ok", f"rlplatform {own} and all its dependencies")


def check_optional() -> Iterable[Check]:
    """Yield which optional packages there are. A missing one is no fault."""
    for module, (purpose, command) in OPTIONAL.items():
        if importlib.util.find_spec(module) is not None:
            yield Check(module, "ok", f"installed, for {purpose}")
        else:
            yield Check(module, "ok", f"not installed; only needed for {purpose}", f"If you need it: `{command}`.")


def check_torch() -> Check:
    """Whether torch computes."""
    return _guarded("torch", "Install torch again; `make install` takes the CPU build.", _torch)


def check_gpu() -> Check:
    """Which GPUs torch can use, and whether there is one that it cannot."""
    return _guarded("gpu", "Install the CUDA build of torch that fits the driver.", _gpu)


def check_home(home: Path) -> Check:
    """Whether the home can be written, and files in it locked and renamed."""
    advice = "Set RLPLATFORM_HOME to a folder on a disk that you may write to."
    return _guarded("home", advice, lambda: _write_and_lock(home))


def check_disk(home: Path) -> Check:
    """How much room the home's disk has."""
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        return Check("disk", "warning", f"{free / 1e9:.1f} GB free", "Make room: `rlplatform runs prune --dry-run`.")
    return Check("disk", "ok", f"{free / 1e9:.1f} GB free at {folder}")


def check_open_files() -> Check:
    """How many files a process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        return Check("open files", "warning", f"at most {soft}", f"Raise the limit: `ulimit -n {MIN_OPEN_FILES}`.")
    return Check("open files", "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def check_shared_memory() -> Check:
    """How large /dev/shm is, where Ray keeps objects."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return Check("shared memory", "ok", "no /dev/shm on this system; Ray uses its own")
    size = shutil.disk_usage(shared).total
    if size < MIN_SHARED_BYTES:
        return Check(
            "shared memory", "warning", f"/dev/shm has {size / 1e9:.2f} GB", "Start the container with --shm-size=2g."
        )
    return Check("shared memory", "ok", f"/dev/shm has {size / 1e9:.1f} GB")


def check_ray() -> Check:
    """Whether a local Ray starts, or the cluster of RAY_ADDRESS answers."""
    return _guarded("ray", "Unset RAY_ADDRESS to start a local Ray, or read the newest /tmp/ray/session_*/logs.", _ray)


def _guarded(name: str, advice: str, look: Callable[[], Check]) -> Check:
    """Return what `look` finds, or its failure as a failed check."""
    try:
        return look()
    except (ImportError, OSError, RuntimeError, RlPlatformError) as error:
        return Check(name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}", advice)


def _torch() -> Check:
    torch = importlib.import_module("torch")
    total = float(torch.ones(8).sum())
    if total != 8:
        return Check("torch", "failed", f"the sum of eight ones is {total}", "Install torch again.")
    return Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _gpu() -> Check:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Check("gpu", "ok", ", ".join(f"{one.name} with {one.total_memory / 2**30:.0f} GiB" for one in devices))
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
        if listed.returncode == 0 and listed.stdout.strip():
            advice = "Install the CUDA build of torch that fits the driver."
            return Check("gpu", "warning", f"torch cannot use {listed.stdout.strip().splitlines()[0]}", advice)
    return Check("gpu", "ok", "none; runs train on the CPU")


def _write_and_lock(home: Path) -> Check:
    from rlplatform.artifacts.atomic import write_text
    from rlplatform.artifacts.locks import file_lock

    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=home) as name:
        write_text(Path(name) / "written", "whole\n")
        with file_lock(Path(name) / "lock"):
            pass
    return Check("home", "ok", f"{home} can be written and locked")


def _ray() -> Check:
    from rlplatform.cluster.session import cluster_nodes, ray_session

    began_at = time.monotonic()
    with ray_session() as session:
        seconds, nodes = time.monotonic() - began_at, len(cluster_nodes())
        how = f"a local Ray started in {seconds:.1f} s" if session.started else f"joined {session.address}"
    return Check("ray", "ok", f"{version('ray')}; {how}, {nodes} node{'' if nodes == 1 else 's'}")
