"""An app that answers on a port, for clients that are programs of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from rlplatform.serve.app import create_app
from rlplatform.serve.gateway import Gateway, open_gateway
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings


@contextmanager
def live(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve an app from a thread on loopback; yield its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def live_service(home: Path, settings: ServeSettings | None = None) -> Iterator[tuple[str, Gateway]]:
    """Serve the whole app over a new home, without Ray; yield its address and what it works with."""
    with (
        open_gateway(settings or ServeSettings(), Settings(home=home)) as gateway,
        live(create_app(gateway)) as address,
    ):
        yield address, gateway
