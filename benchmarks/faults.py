"""Kills worker processes, nodes, drivers and heads during sweeps, and writes docs/results/faults.md.

    python -m benchmarks.faults                        every class, three sweeps each
    python -m benchmarks.faults --sweeps 1 head

A sweep is twelve trials of PPO on CartPole, submitted as a job to a cluster of real nodes on this machine: a head that
trains nothing, and two workers. At moments drawn over the time that the sweep takes when left alone, something is
killed with SIGKILL. Nobody helps afterwards, but for what an operator's tools do: a node that is gone is replaced, a
head that is gone is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.page import ROOT, describe_machine, write_page
from rlplatform import names
from rlplatform.artifacts.checkpoint import CheckpointStore
from rlplatform.artifacts.locks import lock_note
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_dir import SearchDir, list_searches
from rlplatform.artifacts.search_record import TrialRecord
from tests.cluster_nodes import RAY, Node, RayCluster, ray_cluster, wait_until

PAGE = ROOT / "docs" / "results" / "faults.md"
RLPLATFORM = str(Path(sys.executable).parent / "rlplatform")
KINDS = {"process": 3, "node": 2, "driver": 2, "head": 1}
"""What is killed, and how often in each sweep."""
WHAT = {"process": "a process that trains", "node": "a worker node", "driver": "the sweep's driver", "head": "the head"}
TRIALS = 12
TITLE = "Sweeps that lose processes, nodes, drivers and heads"
ABOUT = """A sweep of twelve trials of PPO on CartPole (12,288 steps each, checkpoints every 1,024), two at a time, is
submitted as a job to a cluster of real nodes on one machine: a head that trains nothing, and two workers of one CPU.
At moments drawn uniformly over the middle eight tenths of the time that the same sweep takes alone, something gets
SIGKILL: all processes of a node or of the head, or one process. A lost node is replaced and a lost head is started
again on the same RocksDB; nothing else helps. *Behind its checkpoint*: a trial that went on from an earlier step than
that of the newest good checkpoint on disk when the kill came. *As without kills*: every trial's point, steps, last and
best value are equal to those of the same sweep with nothing killed."""
PATIENCE_S = 900.0
SEARCH = """
name: faults
run:
  algorithm: {{name: ppo, n_steps: 128, batch_size: 64, n_epochs: 4, policy_kwargs: {{net_arch: [32]}}}}
  env: {{id: CartPole-v1, n_envs: 2, backend: sync}}
  budget: {{total_timesteps: 12288}}
  evaluation: {{every_steps: 2048, n_episodes: 3, final_episodes: 0}}
  checkpoint: {{every_steps: 1024}}
  tracking: {{log_every_steps: 1024, tensorboard: false, csv: false}}
  resources: {{cpus: 1}}
space:
  algorithm.learning_rate: {{type: loguniform, low: 1.0e-5, high: 1.0e-2}}
  algorithm.ent_coef: {{type: uniform, low: 0.0, high: 0.02}}
sampler: {{name: random}}
budget: {{trials: {trials}, concurrent: 2}}
seed: {seed}
"""


@dataclass(frozen=True)
class Kill:
    """One kill, and the trials that were training when it came."""

    at: datetime
    after_s: float
    """Seconds since the sweep's first trial began."""
    checkpoints: dict[str, int]
    """Step of the newest good checkpoint by the path of each run that had begun and not ended."""


@dataclass(frozen=True)
class Sweep:
    """How one sweep went."""

    kind: str
    seed: int
    seconds: float
    kills: tuple[Kill, ...]
    trials: tuple[TrialRecord, ...]
    completions: tuple[int, ...]
    """How many attempts of each run ended as completed."""
    behind: int
    """Attempts after a kill that went on from an earlier step than that of the checkpoint that was there."""
    restarts: int
    """Attempts of all runs beyond the first of each."""

    @property
    def finished(self) -> int:
        """How many trials trained their whole budget."""
        return sum(trial.state == "completed" for trial in self.trials)

    @property
    def outcome(self) -> list[tuple[object, ...]]:
        """What must be as if nothing had been killed: points, steps and values of all trials."""
        return [(trial.trial_id, trial.point, trial.step, trial.value, trial.best_value) for trial in self.trials]


def run_sweep(kind: str | None, seed: int, moments: Sequence[float], trials: int) -> Sweep:
    """Run one sweep on a cluster of its own, and kill something of a kind at each moment (seconds after its start)."""
    home = Path(tempfile.mkdtemp(prefix="rlp-faults-"))
    spec = home / "search.yaml"
    spec.write_text(SEARCH.format(trials=trials, seed=seed))
    rng = random.Random(f"{kind}/{seed}")
    try:
        with ray_cluster(durable=True, settings={names.HOME_ENV_VAR: str(home)}) as cluster:
            cluster.add_worker(num_cpus=1)
            cluster.add_worker(num_cpus=1)
            _submit(cluster, home, spec)
            search = wait_until(lambda: _search(home), "the sweep has begun", PATIENCE_S)
            wait_until(lambda: search.runs_begun(), "the first trial trains", PATIENCE_S)
            began, kills = time.monotonic(), []
            for moment in moments:
                time.sleep(max(0.0, began + moment - time.monotonic()))
                if (kill := _kill(str(kind), cluster, search, rng, began)) is None:
                    break
                kills.append(kill)
            wait_until(search.ended, f"the sweep has ended: {search.path}", PATIENCE_S)
            return _sweep(str(kind), seed, time.monotonic() - began, kills, search)
    finally:
        shutil.rmtree(home, ignore_errors=True)


class _Search(SearchDir):
    """A search's folder, with what only this benchmark asks of it."""

    def all_runs(self) -> list[RunDir]:
        """Return the runs that have a folder."""
        return [RunDir(path.parent) for path in sorted(self.path.glob(f"trials/*/seed_*/{names.RUN_FILE}"))]

    def runs_begun(self) -> bool:
        """Return whether a trial trains or has ended."""
        return any(run.read().attempts for run in self.all_runs())

    def ended(self) -> bool:
        """Return whether the search is over; a driver that is to be started again leaves it running or stopped."""
        return self.read().state in {"completed", "failed"}


def _search(home: Path) -> _Search | None:
    found = list_searches(home)
    return _Search(home / names.SEARCHES_DIR / found[0].id) if found else None


def _submit(cluster: RayCluster, home: Path, spec: Path) -> None:
    """Submit the sweep as `rlplatform jobs submit` does, and see to it that there is a RunManager."""
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    manager = [sys.executable, "-m", "rlplatform.cluster.manager_process", "--address", cluster.address]
    subprocess.run([*manager, "--home", str(home)], cwd="/", env=environment, check=True)
    supervisor = [sys.executable, "-m", "rlplatform.cluster.job_supervisor", "--job", "sweep", "--retries", "9", "--"]
    metadata = json.dumps({names.JOB_NAME_METADATA: "sweep"})
    command = [RAY, "job", "submit", "--no-wait", "--submission-id", "sweep", "--metadata-json", metadata, "--"]
    job = [*supervisor, RLPLATFORM, "tune", str(spec), "--wait-for-resources"]
    subprocess.run(
        [*command, *job],
        env={**environment, "RAY_ADDRESS": cluster.dashboard},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _kill(kind: str, cluster: RayCluster, search: _Search, rng: random.Random, began: float) -> Kill | None:
    """Kill something of a kind, note what checkpoints there are then, and do what an operator's tools do.

    What has just been killed may not be back yet: then this waits for it. None: the sweep ended meanwhile.
    """
    targets: dict[str, Callable[[], Sequence[Node | Path]]] = {
        "process": lambda: [run.path for run in search.all_runs() if run.is_alive()],
        "node": lambda: cluster.workers,
        "driver": lambda: [search.path] if search.is_alive() else [],
        "head": lambda: [cluster.head],
    }
    found = wait_until(lambda: search.ended() or targets[kind](), f"there is {WHAT[kind]}", PATIENCE_S)
    if search.ended():
        return None
    at, after_s, target = datetime.now(UTC), time.monotonic() - began, rng.choice(found)
    if isinstance(target, Node):
        target.kill()
    else:
        _kill_holder(target)
    checkpoints = {}
    for run in search.all_runs():
        newest, _ = CheckpointStore(run.checkpoints_path, 1).newest_good()
        if newest is not None and run.read().state != "completed":
            checkpoints[str(run.path)] = newest.manifest.step
    if kind == "node":
        cluster.workers.remove(target)
        cluster.add_worker(num_cpus=1)
    elif kind == "head":
        cluster.start_head()
    return Kill(at, after_s, checkpoints)


def _kill_holder(folder: Path) -> None:
    """Kill the process that holds the lock of a run or a search."""
    found = re.search(r"process (\d+)", lock_note(folder / names.LOCK_FILE))
    if found is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(found[1])).kill()


def _sweep(kind: str, seed: int, seconds: float, kills: Sequence[Kill], search: _Search) -> Sweep:
    records = {str(run.path): run.read() for run in search.all_runs()}
    behind = [
        attempt
        for kill in kills
        for path, step in kill.checkpoints.items()
        for attempt in records[path].attempts
        if attempt.started_at > kill.at and attempt.start_step < step
    ]
    return Sweep(
        kind,
        seed,
        seconds,
        tuple(kills),
        tuple(search.trials()),
        completions=tuple(
            sum(attempt.end_step == record.progress.total for attempt in record.attempts) for record in records.values()
        ),
        behind=len(behind),
        restarts=sum(len(record.attempts) - 1 for record in records.values()),
    )


def report(alone: Sequence[Sweep], killed: Sequence[Sweep]) -> str:
    """Return the page's body: one line for each class, then each sweep."""
    by_seed = {sweep.seed: sweep for sweep in alone}
    lines = [
        "| killed | sweeps | kills | trials finished | finished twice | behind its checkpoint | restarts of a "
        "trial | as without kills | time, against none killed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(sweep.kind for sweep in killed):
        of_kind = [sweep for sweep in killed if sweep.kind == kind]
        longer = sum(sweep.seconds for sweep in of_kind) / sum(by_seed[sweep.seed].seconds for sweep in of_kind)
        cells = (
            WHAT[kind],
            len(of_kind),
            sum(len(sweep.kills) for sweep in of_kind),
            f"{sum(sweep.finished for sweep in of_kind)} of {sum(len(by_seed[s.seed].trials) for s in of_kind)}",
            sum(count > 1 for sweep in of_kind for count in sweep.completions),
            sum(sweep.behind for sweep in of_kind),
            sum(sweep.restarts for sweep in of_kind),
            f"{sum(sweep.outcome == by_seed[sweep.seed].outcome for sweep in of_kind)} of {len(of_kind)}",
            f"{longer:.1f} times",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "Each sweep, with the moments of its kills in seconds after its first trial began:", ""]
    for sweep in [*alone, *killed]:
        moments = ", ".join(f"{kill.after_s:.0f} s" for kill in sweep.kills) or "nothing"
        what = WHAT.get(sweep.kind, "nothing")
        lines.append(
            f"* seed {sweep.seed}, {what}: {moments}; {sweep.finished} of {len(sweep.trials)} trials finished in "
            f"{sweep.seconds:.0f} s"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the sweeps and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"what to kill; all of {', '.join(KINDS)} by default")
    parser.add_argument("--sweeps", type=int, default=3, help="sweeps for each class")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    kinds = options.kinds or list(KINDS)
    alone, killed = [], []
    for seed in range(options.sweeps):
        alone.append(run_sweep(None, seed, (), options.trials))
        _tell(alone[-1])
        for kind in kinds:
            rng = random.Random(f"moments/{kind}/{seed}")
            moments = sorted(rng.uniform(0.1, 0.9) * alone[-1].seconds for _ in range(KINDS[kind]))
            killed.append(run_sweep(kind, seed, moments, options.trials))
            _tell(killed[-1])
            write_page(
                options.page,
                TITLE,
                " ".join(["python -m benchmarks.faults", *sys.argv[1:]]),
                f"{ABOUT}\n\n{report(alone, killed)}\n\n{describe_machine()}",
            )


def _tell(sweep: Sweep) -> None:
    print(f"{sweep.kind} {sweep.seed}: {sweep.finished} finished in {sweep.seconds:.0f} s, {len(sweep.kills)} kills")


if __name__ == "__main__":
    main()
