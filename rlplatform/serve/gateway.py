"""Gateway: what one replica of the service is made of. Every replica is the same; what lasts is in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from rlplatform.names import MODELS_DIR
from rlplatform.serve.fleet import Fleet, NoFleet
from rlplatform.serve.limits import Lease, Ledger, local_lease
from rlplatform.serve.models import ModelCache
from rlplatform.serve.run_view import RecordedRuns, Runs
from rlplatform.serve.services import InferenceLimits, Services
from rlplatform.serve.settings import ServeSettings
from rlplatform.serve.telemetry import Counts, Share, Telemetry, alone
from rlplatform.specs.settings import Settings
from rlplatform.store.audit import AuditLog
from rlplatform.store.database import open_database
from rlplatform.store.deployments import DeploymentStore
from rlplatform.store.experiments import ExperimentStore
from rlplatform.store.keys import KeyStore
from rlplatform.store.registry import DatabaseRegistry


@dataclass(frozen=True)
class Gateway:
    """Everything that routes work with."""

    settings: ServeSettings
    home: Path
    """RLPLATFORM_HOME."""
    inference: Services
    registry: DatabaseRegistry
    experiments: ExperimentStore
    keys: KeyStore
    audit: AuditLog
    deployments: DeploymentStore
    lease: Lease
    """Where requests are counted against limits."""
    runs: Runs = field(default_factory=RecordedRuns)
    """What is known of runs."""
    fleet: Fleet = field(default_factory=NoFleet)
    """What runs deployments of single models."""
    telemetry: Telemetry = field(default_factory=Telemetry)
    share: Share = alone
    """Where counts are put together with those of other replicas."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=monotonic)

    def counts(self) -> Counts:
        """Return what this replica has counted."""
        return self.telemetry.counts(self.inference.streams.count)


@contextmanager
def open_gateway(
    settings: ServeSettings,
    platform: Settings,
    lease: Lease | None = None,
    runs: Runs | None = None,
    fleet: Fleet | None = None,
    share: Share = alone,
) -> Iterator[Gateway]:
    """Open the store, bring its schema up to date, and make everything that routes work with.

    Args:
        settings: What the service is asked to be.
        platform: Where files and the database are.
        lease: The ledger that all replicas share. None: one of this process.
        runs: What is known of runs. None: what is recorded, without Ray.
        fleet: What runs deployments of single models. None: nothing does.
        share: Where counts are put together with those of other replicas.

    Raises:
        StoreError: The database cannot be reached, or is of a newer version.
    """
    with closing(open_database(platform)) as database:
        registry = DatabaseRegistry(database, platform.home / MODELS_DIR)
        registry.sweep()
        models = ModelCache(registry, max_bytes=settings.model_cache_bytes)
        limits = InferenceLimits(max_body_bytes=settings.max_body_bytes, max_streams=settings.max_streams)
        try:
            yield Gateway(
                settings=settings,
                home=platform.home,
                inference=Services(registry=registry, models=models, limits=limits),
                registry=registry,
                experiments=ExperimentStore(database),
                keys=KeyStore(database),
                audit=AuditLog(database),
                deployments=DeploymentStore(database),
                lease=lease or local_lease(Ledger()),
                runs=runs or RecordedRuns(),
                fleet=fleet or NoFleet(),
                share=share,
            )
        finally:
            models.close()
