"""Running the service in the foreground: Ray, Serve and the gateway, from start to an orderly end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import ray

from rlplatform.cluster.manager_process import run_manager
from rlplatform.cluster.session import ray_session
from rlplatform.errors import ResourceError, SpecError
from rlplatform.logs import get_logger
from rlplatform.serve.haproxy import INNER_HOST, find_haproxy, frontend_bind, link_certificate, serve_environment
from rlplatform.serve.settings import PREFIX, ServeSettings
from rlplatform.specs.settings import Settings
from rlplatform.store.database import open_database
from rlplatform.store.keys import KeyStore
from rlplatform.store.tables import now

REQUEST_TIMEOUT_S = 60.0
PATIENCE_S = 20.0
_log = get_logger(__name__)


@dataclass(frozen=True)
class Serving:
    """A service that answers."""

    url: str
    ingress: str
    """What takes the connections, in words."""


@dataclass(frozen=True)
class Ingress:
    """What takes the connections."""

    name: str
    inner_host: str
    """Where what Ray starts listens itself."""
    ends_tls: bool = False
    """Whether it speaks TLS for what stands behind it."""


@contextmanager
def serving(
    settings: ServeSettings, platform: Settings, *, address: str | None = None, num_cpus: int | None = None
) -> Iterator[Serving]:
    """Serve during the block; afterwards let what trains write its checkpoint, and end what was started.

    Args:
        settings: What the service is asked to be.
        platform: Where files and the database are.
        address: A cluster to serve on. None: RAY_ADDRESS, else a local Ray that ends with the service.
        num_cpus: CPUs of a local Ray. None: the machine's.

    Raises:
        SpecError: The service would be open to the network, or its TLS files cannot be read.
        ResourceError: The port is taken, or Ray cannot be started or reached.
    """
    check_exposure(settings, platform)
    check_port(settings)
    with ExitStack() as stack:
        ingress = Ingress("the cluster's own ingress", settings.host)
        if address is None and "RAY_ADDRESS" not in os.environ:
            ingress = stack.enter_context(local_ingress(settings))
        with waiting("Ray"):
            session = stack.enter_context(ray_session(address, num_cpus=num_cpus))
        run_manager(session, platform.home)
        open_database(platform).close()  # Its schema is brought up to date here: replicas need not load what does so.
        stack.callback(_stop, settings, platform)
        with waiting(f"{ingress.name} and {settings.workers} replicas"):
            url = _start(settings, platform, ingress)
        yield Serving(url, ingress.name)


def run_service(
    settings: ServeSettings,
    platform: Settings,
    *,
    address: str | None = None,
    on_ready: Callable[[Serving], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM; see `serving`.

    Args:
        settings: What the service is asked to be.
        platform: Where files and the database are.
        address: A cluster to serve on.
        on_ready: Called once requests are answered.

    Raises:
        SystemExit: A signal came before requests were answered; what had been started is ended.
    """
    with _signals() as signals, _own_signals(), serving(settings, platform, address=address) as service:
        signals.is_starting = False
        on_ready(service)
        signals.ended.wait()
        _log.info("stopping: what trains writes its checkpoint, for at most %g s", settings.shutdown_timeout_s)


def check_exposure(settings: ServeSettings, platform: Settings) -> None:
    """Refuse to be open to the network without a key.

    Raises:
        SpecError: Anybody could train and delete.
    """
    if settings.on_loopback or settings.secret_key is not None:
        return
    with closing(open_database(platform)) as database:
        if any(key.is_valid(now()) for key in KeyStore(database).list()):
            return
    raise SpecError(
        f"The service would listen on {settings.host} for everybody, and there is no key. Make one with "
        f"`rlplatform keys create admin --scopes admin`, or set `{PREFIX}SECRET_KEY`, or leave the host at 127.0.0.1."
    )


def check_port(settings: ServeSettings) -> None:
    """Refuse a port that is taken, and TLS files that are not a certificate and its key.

    Raises:
        ResourceError: The address cannot be listened on.
        SpecError: A TLS file cannot be read, or they do not belong together.
    """
    for path in (settings.ssl_certfile, settings.ssl_keyfile):
        if path is not None and not os.access(path, os.R_OK):
            raise SpecError(
                f"The TLS file {path} cannot be read. Mend `{PREFIX}SSL_CERTFILE` or `{PREFIX}SSL_KEYFILE`."
            )
    if settings.ssl_certfile is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                settings.ssl_certfile, settings.ssl_keyfile, password=""
            )
        except (OSError, ValueError) as error:
            raise SpecError(
                f"{settings.ssl_certfile} and {settings.ssl_keyfile} are no certificate and its key: {error}. Give PEM "
                f"files, the key without a passphrase, by `{PREFIX}SSL_CERTFILE` and `{PREFIX}SSL_KEYFILE`."
            ) from error
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host.strip("[]"), settings.port))
        except OSError as error:
            raise ResourceError(
                f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}. "
                "Give another `--port`, or end what listens there."
            ) from error


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is started in the block, and every `PATIENCE_S` that it still is."""
    ended = threading.Event()

    def tell() -> None:
        waited = 0.0
        while not ended.wait(PATIENCE_S):
            waited += PATIENCE_S
            _log.warning("still waiting for %s to start, for %.0f s", what, waited)

    _log.info("starting %s", what)
    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def local_ingress(settings: ServeSettings) -> Iterator[Ingress]:
    """Choose the ingress of a Ray that is about to be started; RAY_SERVE_ENABLE_HA_PROXY=0 chooses Ray's own proxy."""
    wanted = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") == "1"
    haproxy = find_haproxy() if wanted else None
    folder = Path(tempfile.mkdtemp(prefix="rlp-serve-", dir="/tmp" if Path("/tmp").is_dir() else None))
    certificate = None
    if settings.ssl_certfile is not None and settings.ssl_keyfile is not None:
        certificate = link_certificate(folder, settings.ssl_certfile, settings.ssl_keyfile)
    bind = frontend_bind(settings.host, settings.port, certificate)
    environment = serve_environment(folder, haproxy, bind)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    if wanted and haproxy is None:
        _log.warning("HAProxy does not run here: Ray's own proxy serves, about a tenth as fast")
    try:
        yield Ingress("HAProxy", INNER_HOST, ends_tls=True) if haproxy else Ingress("Ray's own proxy", settings.host)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        shutil.rmtree(folder, ignore_errors=True)


def _start(settings: ServeSettings, platform: Settings, ingress: Ingress) -> str:
    # Serve reads its variables when it is imported.
    from ray import serve

    _quieten_serve()
    from ray.serve.config import HTTPOptions, ProxyLocation

    from rlplatform.serve.deployment import APP_NAME, bind

    tls = settings.ssl_certfile is not None
    files = {}
    if tls and not ingress.ends_tls:
        files = {"ssl_certfile": str(settings.ssl_certfile), "ssl_keyfile": str(settings.ssl_keyfile)}
    options = HTTPOptions(host=ingress.inner_host, port=settings.port, request_timeout_s=REQUEST_TIMEOUT_S, **files)
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options)
    serve.run(bind(settings, platform), name=APP_NAME, route_prefix="/")
    return f"{'https' if tls else 'http'}://{settings.host}:{settings.port}"


def _quieten_serve() -> None:
    """Keep Serve's own log, which it sets up when it is imported, off the terminal; errors still reach it."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _stop(settings: ServeSettings, platform: Settings) -> None:
    from ray import serve

    from rlplatform.serve.runs import shutdown

    _quieten_serve()
    serve.shutdown()
    shutdown(platform, settings.shutdown_timeout_s)


class _Signals:
    """What SIGINT and SIGTERM have asked for: while it starts to give up, then to end, at once if they come again."""

    def __init__(self) -> None:
        self.is_starting, self.number = True, 0
        self.ended = threading.Event()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if self.is_starting:
            for ignored in (signal.SIGINT, signal.SIGTERM):  # What had been started is being ended, in seconds.
                signal.signal(ignored, signal.SIG_IGN)
            self.number = number
            os.write(2, b"\nGiving up the start; what has begun is being ended.\n")
            raise KeyboardInterrupt
        if self.ended.is_set():
            raise KeyboardInterrupt
        self.ended.set()


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    before = {number: signal.signal(number, signals.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    except KeyboardInterrupt:
        if not signals.is_starting:
            raise
        raise SystemExit(128 + signals.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray, which starts in the block, from taking SIGTERM for itself: it would print a dump and clean up nothing.

    Ray has a variable for the dump, which is read before it can be set here, and no switch for the rest (2.60).
    """
    constants, utils = ray._private.ray_constants, ray._private.utils
    before = constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER, utils.set_sigterm_handler
    constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER, utils.set_sigterm_handler = True, lambda _: None
    try:
        yield
    finally:
        constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER, utils.set_sigterm_handler = before
