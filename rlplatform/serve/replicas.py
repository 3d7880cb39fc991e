"""What replicas have in common, of the gateway and of single models: options, logs, and the ledger of the limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray
from ray import serve

from rlplatform import names
from rlplatform.cluster.session import remote
from rlplatform.errors import ResourceError
from rlplatform.logs import configure
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.limits import Grant, Lease, Ledger
from rlplatform.serve.one_write import write_answers_at_once
from rlplatform.serve.settings import ServeSettings
from rlplatform.serve.telemetry import SHARE_EVERY_S, Counts, Share, Tally

LEDGER_ACTOR = "rlplatform-ledger"
MAX_ONGOING = 256
MAX_QUEUED = 1024
"""Requests beyond those at work that one replica lets wait; more are answered with 503."""


class SharedLedger(Ledger):
    """What there is one of, whatever the number of replicas."""

    def __init__(self) -> None:
        super().__init__()
        self._tally = Tally()

    def share(self, replica: str, counts: Counts) -> list[Counts]:
        """See `Tally.share`."""
        return self._tally.share(replica, counts)


_RemoteLedger: Any = remote(num_cpus=0, max_restarts=-1)(SharedLedger)


def prepare_replica(settings: ServeSettings, home: Path) -> None:
    """Begin a replica's process: its logs, its ports closed, and answers that are one write each."""
    configure(settings.log_dir or home / names.LOGS_DIR / "api", settings.log_level, terminal=False)
    _close_inner_port()
    write_answers_at_once()


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
        "logging_config": {"log_level": "WARNING"},  # The gate counts and logs requests already.
        "ray_actor_options": {"num_cpus": num_cpus},
    }


def shared_lease() -> Lease:
    """Return the lease of the ledger that all replicas share."""
    ledger = _ledger()

    async def lease(key: str, per_minute: float, wanted: int, unused: int) -> Grant:
        try:
            grant: Grant = await ledger.lease.remote(key, per_minute, wanted, unused)
        except ray.exceptions.RayError:
            return Grant(0, 1.0)  # it is being restarted: nobody gets past a limit meanwhile
        return grant

    return lease


def shared_counts() -> Share:
    """Return what puts the counts of this replica together with those of all others."""
    ledger, replica = _ledger(), _replica_id()

    async def share(counts: Counts) -> list[Counts]:
        try:
            everybodys: list[Counts] = await ledger.share.remote(replica, counts)
        except ray.exceptions.RayError as error:
            raise ResourceError("The counts of other replicas cannot be had at this moment. Ask again.") from error
        return everybodys

    return share


@contextmanager
def sharing(gateway: Gateway) -> Iterator[None]:
    """Leave the counts of this replica with the tally every `SHARE_EVERY_S` during the block, and at its end."""
    ledger, replica, over = _ledger(), _replica_id(), Event()

    def share() -> None:
        while not over.wait(SHARE_EVERY_S):
            ledger.share.remote(replica, gateway.counts())

    Thread(target=share, name="counts", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        ledger.share.remote(replica, gateway.counts())


def _replica_id() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def _ledger() -> Any:
    """Return the actor that all replicas share; the first one makes it."""
    options = {"name": LEDGER_ACTOR, "namespace": names.RAY_NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return _RemoteLedger.options(**options).remote()
