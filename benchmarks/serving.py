"""How fast the service answers, beside an empty endpoint, SB3's `predict` and bare onnxruntime.

    python -m benchmarks.serving --under serve --write docs/results/serving.md

Needs `wrk`. All services stand at once, one process each, under uvicorn or as replicas of one Ray Serve; those of SB3
always under uvicorn, as one would run them. Each round loads them in turn, and what is reported are medians over
rounds, ratios being taken within a round: another load on the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from benchmarks.page import describe_machine, write_page
from benchmarks.serving_apps import MODEL, ON_SERVE

BATCH = 256
_LUA = """
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"
{headers}
function done(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.stderr:write(string.format('{{"n": %d, "us": %d, "p50": %d, "p99": %d, "bad": %d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), bad))
end
"""


@dataclass(frozen=True)
class Load:
    """One way to ask one service."""

    title: str
    app: str
    path: str
    body: bytes
    headers: dict[str, str]
    connections: int = 1
    rows: int = 1
    """Observations in one request."""


@dataclass(frozen=True)
class Result:
    """What came of one load in one round."""

    per_s: float
    """Observations answered."""
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure, print the page, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parser.add_argument("--under", choices=["uvicorn", "serve"], default="uvicorn", help="what runs the services")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each load in each round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        os.environ["RLPLATFORM_HOME"] = folder
        key = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving_apps", "prepare", folder],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        loads = all_loads(key)
        apps = sorted({load.app for load in loads})
        alone = [app for app in apps if arguments.under == "uvicorn" or app not in ON_SERVE]
        servers = {app: stack.enter_context(served(app, home)) for app in alone}
        if arguments.under == "serve":
            servers |= dict.fromkeys(ON_SERVE, stack.enter_context(served("serve", home)))
            loads = [
                replace(load, path=f"/{load.app}{load.path}") if load.app in ON_SERVE and load.app != "ours" else load
                for load in loads
            ]
        for load in loads:  # Loads models, and fills what is filled by use.
            measure(load, servers[load.app].port, home, 1)
        rounds = [
            [measure(load, servers[load.app].port, home, arguments.seconds) for load in loads]
            for _ in range(arguments.rounds)
        ]
        memory = {app: servers[app].memory_mb(app) for app in apps}
    body = report(loads, rounds, memory)
    print(body)
    if arguments.write:
        write_page(arguments.write, "How fast the service answers", f"python {' '.join(sys.orig_argv[1:])}", body)


def all_loads(key: str) -> list[Load]:
    """Return every load, each right behind what it is compared with."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((BATCH, 4)).astype(np.float32)
    one = json.dumps({"model_name": MODEL, "observation": [0.1, 0.0, 0.05, 0.0], "deterministic": True}).encode()
    many = json.dumps(
        {"model_name": MODEL, "observation": [[round(float(x), 6) for x in row] for row in rows]}
    ).encode()
    tensor = {"name": "obs", "shape": [BATCH, 4], "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes}}
    head = json.dumps(
        {"inputs": [tensor], "outputs": [{"name": "action", "parameters": {"binary_data": True}}]}
    ).encode()
    typed = {"Content-Type": "application/json"}
    keyed = typed | {"Authorization": f"Bearer {key}"}
    binary = {**keyed, "Inference-Header-Content-Length": str(len(head))}
    loads = []
    for n in (1, 16, 64):
        loads += [
            Load(f"one observation, {n} connections", app, "/inference", one, keyed if app == "ours" else typed, n)
            for app in ("empty", "sb3", "sb3_tuned", "ours")
        ]
    loads += [
        Load(f"batch of {BATCH}, JSON", app, "/inference", many, keyed if app == "ours" else typed, rows=BATCH)
        for app in ("bare_onnx", "ours")
    ]
    loads += [
        Load(f"batch of {BATCH}, binary", "bare_onnx", "/binary", rows.tobytes(), {}, rows=BATCH),
        Load(
            f"batch of {BATCH}, binary", "ours", f"/v2/models/{MODEL}/infer", head + rows.tobytes(), binary, rows=BATCH
        ),
    ]
    text = json.dumps({"observation": [0.1, 0.0, 0.05, 0.0]}).encode()
    stream = f"/inference/stream?model_name={MODEL}"
    loads += [
        Load("WebSocket, one after the other", app, stream, text, keyed) for app in ("empty", "bare_onnx", "ours")
    ]
    return loads


@dataclass(frozen=True)
class Server:
    """A service that stands."""

    port: int
    process: subprocess.Popen[bytes]

    def memory_mb(self, app: str) -> float:
        """Return what the process of an app holds of memory: its resident set."""
        process = psutil.Process(self.process.pid)
        replica = "ServeReplica:rlplatform:" if app == "ours" else f"ServeReplica:{app}:"
        replicas = [child for child in process.children(recursive=True) if replica in " ".join(child.cmdline())]
        return float((replicas or [process])[0].memory_info().rss / 2**20)


@contextmanager
def served(app: str, home: Path) -> Iterator[Server]:
    """Serve an app in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.serving_apps", app, str(home), "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError as error:
                if process.poll() is not None:
                    raise SystemExit(f"{app} ended with {process.returncode} before it served.") from error
                time.sleep(0.1)
        while app == "serve" and not (home / "serving").exists() and process.poll() is None:
            time.sleep(0.1)  # HAProxy listens before there is anything behind it.
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait()


def measure(load: Load, port: int, folder: Path, seconds: float) -> Result:
    """Load a service, and return what came of it."""
    if load.title.startswith("WebSocket"):
        return measure_stream(load, port, seconds)
    body, script = folder / "body", folder / "load.lua"
    body.write_bytes(load.body)
    headers = "\n".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in load.headers.items()
    )
    script.write_text(_LUA.format(body=body, headers=headers))
    url = f"http://127.0.0.1:{port}{load.path}"
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds:.0f}s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stderr)
    if found["bad"]:
        raise SystemExit(f"{load.app}, {load.title}: {found['bad']} of {found['n']} requests failed.\n{done.stdout}")
    return Result(load.rows * found["n"] / found["us"] * 1e6, found["p50"] / 1e3, found["p99"] / 1e3)


def measure_stream(load: Load, port: int, seconds: float) -> Result:
    """Send one message after another over one WebSocket."""
    from websockets.sync.client import connect

    text, times = load.body.decode(), []
    keyed = {"Authorization": load.headers["Authorization"]}
    with connect(f"ws://127.0.0.1:{port}{load.path}", compression=None, additional_headers=keyed) as stream:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            stream.send(text)
            stream.recv()
            times.append(time.perf_counter() - start)
    times.sort()
    return Result(len(times) / sum(times), 1e3 * times[len(times) // 2], 1e3 * times[int(0.99 * len(times))])


def report(loads: list[Load], rounds: list[list[Result]], memory: dict[str, float]) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"{describe_machine()} Load average {os.getloadavg()[0]:.1f} when it ended; {len(rounds)} rounds.",
        "",
        "`ours` is the whole gateway with key, rate limit and counters on. `empty` is a FastAPI endpoint that does",
        "nothing, `bare_onnx` one `session.run`; they stand where ours does. `sb3` is SB3's `predict` in a FastAPI",
        "function as the tutorial writes it, `sb3_tuned` the same on the event loop with one torch thread, both under",
        "uvicorn alone. The last column is ours over theirs, the median of the rounds' ratios.",
        "",
        "| load | service | observations/s | p50 ms | p99 ms | ours is |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for index, load in enumerate(loads):
        results = [each[index] for each in rounds]
        ratio = ""
        if load.app != "ours":
            own = next(i for i, other in enumerate(loads) if (other.title, other.app) == (load.title, "ours"))
            ratio = f"{statistics.median(each[own].per_s / each[index].per_s for each in rounds):.2f}x"
        medians = [statistics.median(getattr(one, field) for one in results) for field in ("per_s", "p50_ms", "p99_ms")]
        lines.append(
            f"| {load.title} | {load.app} | {medians[0]:,.0f} | {medians[1]:.2f} | {medians[2]:.2f} | {ratio} |"
        )
    held = ", ".join(f"{app} {size:.0f} MB" for app, size in memory.items())
    return "\n".join([*lines, "", f"Memory of each process at the end: {held}."] if held else lines)


if __name__ == "__main__":
    main()
