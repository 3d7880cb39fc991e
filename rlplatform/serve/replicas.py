"""What replicas have in common, of the gateway and of single models: options, logs, and the ledger of the limits."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import ray

from rlplatform import names
from rlplatform.cluster.session import remote
from rlplatform.logs import configure
from rlplatform.serve.limits import Grant, Lease, Ledger
from rlplatform.serve.settings import ServeSettings

LEDGER_ACTOR = "rlplatform-ledger"
MAX_ONGOING = 256
MAX_QUEUED = 1024
"""Requests beyond those at work that one replica lets wait; more are answered with 503."""

RemoteLedger: Any = remote(num_cpus=0, max_restarts=-1)(Ledger)


def prepare_replica(settings: ServeSettings, home: Path) -> None:
    """Begin a replica's process: its logs, and its ports closed."""
    configure(settings.log_dir or home / names.LOGS_DIR / "api", settings.log_level, terminal=False)
    _close_inner_port()


def _close_inner_port() -> None:
    """Have Serve's own gRPC port of this replica listen on the node's address only, which is loopback in a local Ray.

    Ray opens it on every interface, takes pickles there and asks for no token, and has no switch for that (2.60). It is
    opened once the replica stands.
    """
    module: Any = import_module("ray.serve._private.replica")
    add_port, address = module.add_port_to_grpc_server, ray.util.get_node_ip_address()

    def closed(server: Any, wanted: str) -> int:
        return int(add_port(server, wanted.replace("[::]", address)))

    module.add_port_to_grpc_server = closed


def replica_options(settings: ServeSettings, num_cpus: float) -> dict[str, Any]:
    """Return the options of a deployment.

    Args:
        settings: What the service is asked to be.
        num_cpus: What each replica books.
    """
    return {
        "max_ongoing_requests": MAX_ONGOING + settings.max_streams,
        "max_queued_requests": MAX_QUEUED,
        "max_surge_percent": 100,  # New replicas stand before old ones go.
        "graceful_shutdown_timeout_s": settings.shutdown_timeout_s,
        "health_check_period_s": 5,
        "ray_actor_options": {"num_cpus": num_cpus},
    }


def shared_lease() -> Lease:
    """Return the lease of the ledger that all replicas share; the first one makes it."""
    ledger = RemoteLedger.options(
        name=LEDGER_ACTOR, namespace=names.RAY_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()

    async def lease(key: str, per_minute: float, wanted: int) -> Grant:
        try:
            grant: Grant = await ledger.lease.remote(key, per_minute, wanted)
        except ray.exceptions.RayError:
            return Grant(0, 1.0)  # it is being restarted: nobody gets past a limit meanwhile
        return grant

    return lease
