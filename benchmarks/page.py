"""What the benchmark scripts share: the frame of a results page, and the sentence about the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_page(path: Path, title: str, command: str, body: str) -> None:
    """Write a results page: title, the command that makes it, date and revision, then the body."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).date().isoformat()
    text = f"# {title}\n\nMade by `{command}` on {date}, revision `{revision or 'unknown'}`.\n\n{body.strip()}\n"
    path.write_text(text, encoding="utf-8")


def describe_machine() -> str:
    """Return one sentence about this machine and the packages that decide speed and numbers."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "stable-baselines3", "gymnasium", "numpy"))
    return f"Machine: {os.cpu_count()} cores, {_cpu_model()}; Python {platform.python_version()}, {packages}."


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
