"""`rlplatform keys`: who may use the service beyond this machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.commands.options import Json
from rlplatform.commands.output import next_commands, print_json, print_table, say

if TYPE_CHECKING:
    from rlplatform.store.keys import Key

app = typer.Typer(help="Make, list and revoke the keys of the service.", no_args_is_help=True)

Scopes = Annotated[str, typer.Option(metavar="SCOPES", help="Of read, infer, train, admin; separated by commas.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what it is for.", show_default=False)],
    scopes: Scopes = "read,infer",
    days: Annotated[float | None, typer.Option(min=0, metavar="N", help="Days until it expires [never].")] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Most requests a minute.")] = None,
    max_runs: Annotated[int | None, typer.Option(metavar="N", help="Most experiments that train together.")] = None,
    max_steps: Annotated[int | None, typer.Option(metavar="N", help="Most steps of one experiment.")] = None,
    max_hours: Annotated[float | None, typer.Option(metavar="N", help="Longest training of one experiment.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print its secret, which is shown this once and kept nowhere."""
    from rlplatform.commands.targets import open_store
    from rlplatform.store.keys import KeyStore

    with open_store() as database:
        new = KeyStore(database).create(
            name,
            _split(scopes),
            rate_per_min=rate,
            max_runs=max_runs,
            max_steps=max_steps,
            max_hours=max_hours,
            expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
        )
    if as_json:
        print_json({**_as_data(new.key), "secret": new.secret})
        return
    print(new.secret)
    say("Keep it now: it cannot be shown again.")
    next_commands(
        (f"curl -H 'Authorization: Bearer {new.secret[:8]}…' URL/experiments", "use it"),
        (f"rlplatform keys revoke {new.key.id}", "end it"),
    )


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the keys, without their secrets."""
    from rlplatform.commands.targets import open_store
    from rlplatform.store.keys import KeyStore

    with open_store() as database:
        keys = KeyStore(database).list()
    if as_json:
        print_json([_as_data(key) for key in keys])
        return
    rows = [
        (key.id, key.name, ", ".join(sorted(key.scopes)), _state(key), key.created_at.date().isoformat())
        for key in keys
    ]
    print_table(("id", "name", "scopes", "state", "made"), rows)


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="See `rlplatform keys list`.", show_default=False)],
) -> None:
    """End a key for good; the service stops taking it within seconds."""
    from rlplatform.commands.targets import open_store
    from rlplatform.store.keys import KeyStore

    with open_store() as database:
        key = KeyStore(database).revoke(id)
    print(f"Revoked {key.id} ({key.name}).")


@app.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for.", show_default=False)],
    scopes: Scopes = "read,infer",
) -> None:
    """Print a token signed with RL_API_SECRET_KEY, good for RL_API_ACCESS_TOKEN_EXPIRE_MINUTES."""
    from rlplatform.serve.auth import make_jwt
    from rlplatform.serve.settings import load_serve_settings

    print(make_jwt(load_serve_settings(), name, _split(scopes)))


def _split(scopes: str) -> list[str]:
    return [scope.strip() for scope in scopes.split(",") if scope.strip()]


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "good"
    return "expired" if key.expires_at <= datetime.now(UTC) else f"good until {key.expires_at:%Y-%m-%d}"


def _as_data(key: Key) -> dict[str, object]:
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in vars(key).items()}
