"""What clients notice while an alias moves, a replica is killed and the service is deployed anew.

    python -m benchmarks.serving_faults --write docs/results/serving_faults.md

Clients ask evenly, over connections that they keep, and never repeat a request. An answer is of a wrong
version if the alias pointed at that at no moment from one second before it was asked for until it came.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import describe_machine, write_page
from rlplatform.names import MODELS_DIR
from rlplatform.serve.server import free_port, serving
from rlplatform.serve.settings import load_serve_settings
from rlplatform.specs.settings import Settings
from rlplatform.store.database import open_database
from rlplatform.store.registry import DatabaseRegistry

CLIENTS = 8
MOVES = 20
PER_S = 200
"""Requests of all clients together: the alias then stays for more than two seconds wherever it points."""
MODEL = "demo"
MAX_AGE_S = 1.0
NOTICED_S = 0.05
"""How long after a replica is gone HAProxy may not know it."""


@dataclass(frozen=True)
class Answer:
    """What came of one request."""

    sent: float
    received: float
    status: int
    """0: the connection was cut."""
    version: str


@dataclass(frozen=True)
class Term:
    """When the alias pointed at a version."""

    version: str
    began: float
    """Before the move was written."""
    ended: float
    """After the next one was."""


@dataclass(frozen=True)
class Outcome:
    """What happened."""

    answers: list[Answer]
    terms: list[Term]
    killed: tuple[float, float]
    """When the signal was sent, and when the process was gone."""
    redeployed: tuple[float, float]

    def failed(self) -> list[Answer]:
        """Return the requests that were not answered as they should."""
        return [answer for answer in self.answers if answer.status != 200]

    def cut(self) -> list[Answer]:
        """Return the failed requests that were under way, or sent, while the replica died."""
        sent, gone = self.killed
        return [one for one in self.failed() if one.sent <= gone + NOTICED_S and one.received >= sent]

    def wrong(self) -> list[Answer]:
        """Return the answers of versions that were not current."""
        return [one for one in self.answers if one.status == 200 and not self._was_current(one)]

    def _was_current(self, answer: Answer) -> bool:
        return any(
            term.version == answer.version and term.began <= answer.received and term.ended >= answer.sent - MAX_AGE_S
            for term in self.terms
        )


def main() -> None:
    """Measure, print the page, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parser.add_argument("--requests", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(Path(folder), arguments.requests)
    body = report(outcome)
    print(body)
    if arguments.write:
        write_page(arguments.write, "What clients notice of faults", f"python {' '.join(sys.orig_argv[1:])}", body)
    if outcome.wrong() or len(outcome.failed()) > len(outcome.cut()):
        raise SystemExit("A request failed, or was answered by a wrong version, without a reason.")


def measure(home: Path, n_requests: int) -> Outcome:
    """Serve from two replicas, disturb them, and return what clients saw."""
    platform = Settings(home=home)
    with closing(open_database(platform)) as database:
        registry = publish(home, DatabaseRegistry(database, home / MODELS_DIR))
        settings = load_serve_settings(port=free_port(), workers=2, log_level="WARNING")
        with serving(settings, platform, num_cpus=2) as service:
            print(f"serving through {service.ingress}", flush=True)
            return disturb(Load(settings.port, n_requests), registry, lambda: redeploy(settings, platform))


def publish(home: Path, registry: DatabaseRegistry) -> DatabaseRegistry:
    """Publish two versions of an untrained policy; the first is the champion."""
    from stable_baselines3 import PPO

    from rlplatform.policy.export import export_bundle

    for seed in (0, 1):
        model = PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=seed)
        registry.publish(MODEL, export_bundle(model, None, home / f"bundle{seed}").path)
    registry.set_alias(MODEL, "champion", 1)
    return registry


class Load:
    """Clients that ask until a number of requests is reached."""

    def __init__(self, port: int, n_requests: int) -> None:
        """Ask nothing yet."""
        self.answers: list[Answer] = []
        self._port, self._n = port, n_requests
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def wait_for(self, share: float) -> None:
        """Wait until this share of the requests is answered."""
        while len(self.answers) < share * self._n:
            time.sleep(0.01)

    def join(self) -> None:
        """Wait until all are answered."""
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        body = json.dumps({"model_name": f"{MODEL}@champion", "observation": [0.1, 0.0, 0.05, 0.0]})
        headers = {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        due = time.monotonic()
        while len(self.answers) < self._n:
            due += CLIENTS / PER_S
            time.sleep(max(0.0, due - time.monotonic()))
            sent, status, version = time.monotonic(), 0, ""
            try:
                connection.request("POST", "/inference", body, headers)
                answer = connection.getresponse()
                answer.read()
                status, version = answer.status, answer.headers.get("X-Model-Version", "")
            except (OSError, http.client.HTTPException):
                connection.close()  # The next request opens it again.
            self.answers.append(Answer(sent, time.monotonic(), status, version))
        connection.close()


def disturb(load: Load, registry: DatabaseRegistry, deploy_anew: Callable[[], None]) -> Outcome:
    """Move the alias evenly over the requests, kill after a third of them, deploy anew after half."""
    began: list[tuple[str, float, float]] = [(f"{MODEL}@1", 0.0, 0.0)]  # version, before and after its alias was set
    killed, redeployed = (0.0, 0.0), [0.0, 0.0]

    def deploy() -> None:
        redeployed[0] = time.monotonic()
        deploy_anew()
        redeployed[1] = time.monotonic()

    deployment = threading.Thread(target=deploy)
    load.start()
    for move in range(1, MOVES + 1):
        load.wait_for(move / (MOVES + 1))
        before, number = time.monotonic(), 1 + move % 2
        registry.set_alias(MODEL, "champion", number)
        began.append((f"{MODEL}@{number}", before, time.monotonic()))
        if move == MOVES // 3:
            killed = kill_a_replica()
        if move == MOVES // 2:
            deployment.start()
    load.join()
    deployment.join()
    ends = [after for _, _, after in began[1:]] + [time.monotonic()]
    terms = [Term(version, before, end) for (version, before, _), end in zip(began, ends, strict=True)]
    return Outcome(load.answers, terms, killed, (redeployed[0], redeployed[1]))


def kill_a_replica() -> tuple[float, float]:
    """Send SIGKILL to a replica of the gateway; return when, and when it was gone."""
    import psutil

    replicas = [
        process
        for process in psutil.Process().children(recursive=True)
        if "ServeReplica:rlplatform" in "".join(process.cmdline())
    ]
    at = time.monotonic()
    replicas[0].kill()
    while replicas[0].is_running() and replicas[0].status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.001)
    return at, time.monotonic()


def redeploy(settings: object, platform: Settings) -> None:
    """Deploy the gateway with another limit, which replaces every replica."""
    from ray import serve

    from rlplatform.serve.deployment import APP_NAME, bind
    from rlplatform.serve.settings import ServeSettings

    assert isinstance(settings, ServeSettings)
    changed = settings.model_copy(update={"rate_limit_per_minute": 100_000_000})
    serve.run(bind(changed, platform), name=APP_NAME, route_prefix="/")


def report(outcome: Outcome) -> str:
    """Return what happened as Markdown."""
    answers, failed, cut = outcome.answers, outcome.failed(), outcome.cut()
    times = sorted(1e3 * (answer.received - answer.sent) for answer in answers)
    seconds = max(answer.received for answer in answers) - min(answer.sent for answer in answers)
    versions = Counter(answer.version for answer in answers if answer.status == 200)
    by_version = ", ".join(f"{version}: {count:,}" for version, count in sorted(versions.items()))
    statuses = ", ".join(f"{status or 'cut'}: {count}" for status, count in Counter(x.status for x in failed).items())
    took = outcome.redeployed[1] - outcome.redeployed[0]
    rows = (
        ("requests", f"{len(answers):,} by {CLIENTS} clients in {seconds:.1f} s"),
        ("moves of the alias", f"{len(outcome.terms) - 1}"),
        ("answers by version", by_version),
        ("answers of a version that was not current", f"{len(outcome.wrong())}"),
        ("failed, under way or sent while the replica died", f"{len(cut)}"),
        ("failed otherwise", f"{len(failed) - len(cut)}"),
        ("what failed looked like", statuses or "nothing failed"),
        ("the new deployment took", f"{took:.1f} s"),
        (
            "latency p50 / p99 / longest",
            " / ".join(f"{x:.1f} ms" for x in (statistics.median(times), times[int(0.99 * len(times))], times[-1])),
        ),
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"{describe_machine()} Load average {os.getloadavg()[0]:.1f} when it ended.\n\n"
        "Two replicas behind HAProxy, as `rlplatform serve --workers 2` starts them, answer clients that keep their\n"
        "connections and repeat nothing. Meanwhile an alias moves, one replica gets SIGKILL, and the service is\n"
        "deployed with another setting, which replaces both replicas. A version is current until\n"
        f"{MAX_AGE_S:g} s after the alias has moved.\n\n| | |\n|---|---|\n{table}"
    )


if __name__ == "__main__":
    main()
