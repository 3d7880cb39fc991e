"""`rlplatform serve`: policies and experiments over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.commands.options import Address


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, metavar="N", help="Port [8000].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Replicas [1].")] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS certificate.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS key.")] = None,
    address: Address = None,
) -> None:
    """Serve policies and experiments over HTTP until Ctrl-C.

    Every setting is also a variable, `RL_API_HOST` and so on; docs/serving.md lists them. `--debug` logs in detail and,
    on loopback, takes the token `test-token`.
    """
    from rlplatform.commands.output import next_commands, say
    from rlplatform.commands.workspace import start_logs
    from rlplatform.serve.server import Serving, run_service
    from rlplatform.serve.settings import load_serve_settings
    from rlplatform.specs.settings import load_settings

    debug = True if context.obj == "debug" else None
    settings = load_serve_settings(
        host=host,
        port=port,
        workers=workers,
        debug=debug,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        log_level="DEBUG" if debug else None,
    )
    start_logs()

    def ready(serving: Serving) -> None:
        say(f"Serving on {serving.url} through {serving.ingress}. Every endpoint: {serving.url}/docs. Ctrl-C ends it.")
        next_commands(
            (f"curl {serving.url}/health", "see that it answers"),
            (f"curl {serving.url}/models", "see which policies it can ask"),
        )

    run_service(settings, load_settings(), address=address, on_ready=ready)
