"""Making the cluster's RunManager, free of the code of whoever needs it first.

A detached actor inherits the runtime_env and the import path of the driver that makes it, and would keep a finished
job's code for as long as the cluster lives. So on a cluster a short process without either makes it; in a Ray of our
own, which ends with the driver, the driver does.

When the head node is lost, Ray makes the manager again on the new head if the cluster's state outlived the old one
(RAY_gcs_storage, or Redis). Otherwise this does, at the next call or when an operator runs it after `ray start`; the
journal of a cluster is named after the address of its head, so either takes up what the manager before it left.

    python -m rlplatform.cluster.manager_process --address HEAD:6379 --home /shared/rlplatform
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray

from rlplatform import names
from rlplatform.cluster.job import JOB_VARIABLES
from rlplatform.cluster.run_manager import ManagerOptions, RemoteRunManager
from rlplatform.cluster.session import RaySession, ray_session
from rlplatform.errors import ResourceError

_TIMEOUT_S = 120.0
_HEAD = "node:__internal_head__"
"""The resource that only the head node has."""


def run_manager(session: RaySession, home: Path, options: ManagerOptions | None = None) -> Any:
    """Return the cluster's RunManager, made if there is none yet.

    Args:
        session: The connection to Ray.
        home: RLPLATFORM_HOME; a new manager keeps its journal and its log there.
        options: How a new manager works.

    Raises:
        ResourceError: This package is not installed where the cluster's Python is.
    """
    try:
        return ray.get_actor(names.RUN_MANAGER_ACTOR, names.RAY_NAMESPACE)
    except ValueError:
        if session.started:
            return make_run_manager(home, secrets.token_hex(4), options)
    environment = {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}
    command = [sys.executable, "-m", __name__, "--address", session.address, "--home", str(home)]
    # Started elsewhere than in the job's folder, which Python and Ray would put on the import path.
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        raise ResourceError(
            f"The RunManager could not be started: {lines[-1]}. Is rlplatform installed for {sys.executable}?"
        )
    return ray.get_actor(names.RUN_MANAGER_ACTOR, names.RAY_NAMESPACE)


def make_run_manager(home: Path, name: str, options: ManagerOptions | None = None) -> Any:
    """Make the RunManager on the head node, unless somebody else just did, and wait until it answers.

    Args:
        home: RLPLATFORM_HOME.
        name: What its journal is called; it takes up the one that is there.
        options: How it works.
    """
    journal = home / names.RUN_MANAGERS_DIR / f"{name}.json"
    manager = RemoteRunManager.options(
        name=names.RUN_MANAGER_ACTOR,
        namespace=names.RAY_NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        resources={_HEAD: 0.001},
    ).remote(str(journal), options or ManagerOptions())
    ray.get(manager.runs.remote())
    return manager


def main() -> None:
    """Make the RunManager of the cluster that is named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--home", required=True, type=Path)
    arguments = parser.parse_args()
    with ray_session(arguments.address) as session:
        make_run_manager(arguments.home, cluster_name(session), ManagerOptions(watch_jobs=True))


def cluster_name(session: RaySession) -> str:
    """Return what the journal of a cluster's manager is called: its head's own address, whatever a client calls it."""
    nodes = (node for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])
    return journal_name(str(next(nodes)["NodeManagerAddress"]), session.address.rpartition(":")[2])


def journal_name(host: str, port: str) -> str:
    """Return the name of a journal from the address of the head and the port that clients join."""
    # Machines that share a home may each have a cluster on their loopback interface.
    host = socket.gethostname() if host in {"127.0.0.1", "::1"} else host
    return f"{host.replace(':', '-')}-{port}"


if __name__ == "__main__":
    main()
