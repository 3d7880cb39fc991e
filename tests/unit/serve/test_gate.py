"""What the gate lets in, what it refuses, and what it adds to answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr

from rlplatform.serve.auth import TEST_TOKEN, Authenticator, make_jwt, scope_of
from rlplatform.serve.gate import Gate
from rlplatform.serve.limits import Ledger, RateLimiter, local_lease
from rlplatform.serve.refusals import add_refusals
from rlplatform.serve.settings import ServeSettings
from rlplatform.serve.telemetry import Telemetry, exposition
from rlplatform.store.database import Database, default_url
from rlplatform.store.keys import KeyStore

SECRET = SecretStr("s" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    database = Database(default_url(tmp_path))
    database.upgrade()
    return KeyStore(database)


def app(settings: ServeSettings, keys: KeyStore | None = None, telemetry: Telemetry | None = None) -> FastAPI:
    """Return an app with a route for each scope behind the gate."""
    app = FastAPI()
    add_refusals(app)

    async def who(request: Request) -> dict[str, Any]:
        await request.body()
        return {"who": request.state.principal.name}

    for path, method in (("/health", "GET"), ("/experiments", "GET"), ("/experiments", "POST"), ("/secret", "GET")):
        app.add_api_route(path, who, methods=[method])
    app.add_api_route("/broken", lambda: 1 / 0)
    limiter = RateLimiter(local_lease(Ledger()))
    app.add_middleware(
        Gate,
        settings=settings,
        authenticator=Authenticator(settings, keys),
        limiter=limiter,
        telemetry=telemetry or Telemetry(),
    )
    return app


def ask(
    app: FastAPI,
    path: str = "/experiments",
    *,
    method: str = "GET",
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    content: Any = None,
    host: str = "127.0.0.1:8000",
) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            given = {"Authorization": f"Bearer {token}"} if token else {}
            return await client.request(method, path, headers=given | dict(headers or {}), content=content)

    return asyncio.run(send())


def test_on_loopback_nobody_needs_a_key() -> None:
    answer = ask(app(ServeSettings()))
    assert answer.status_code == 200
    assert answer.json()["who"].startswith("anonymous@")
    assert float(answer.headers["X-Process-Time"]) >= 0
    assert answer.headers["X-Request-ID"]


def test_beyond_loopback_a_key_of_the_right_scope_is_needed(keys: KeyStore) -> None:
    gate = app(ServeSettings(host="0.0.0.0"), keys)
    reader, admin = keys.create("reader", ["read"]).secret, keys.create("admin", ["admin"]).secret
    assert ask(gate, "/health").status_code == 200
    missing = ask(gate)
    assert missing.status_code == 401
    assert missing.headers["WWW-Authenticate"] == "Bearer"
    assert missing.json().keys() == {"detail", "error", "message", "details", "timestamp"}
    assert ask(gate, token=reader).status_code == 200
    under = ask(gate, method="POST", token=reader)
    assert (under.status_code, under.json()["error"]) == (403, "Forbidden")
    assert "`train`" in under.json()["detail"]
    assert ask(gate, "/secret", token=reader).status_code == 403
    assert ask(gate, "/secret", token=admin).status_code == 200


@pytest.mark.parametrize("token", ["rlp_000000000000_" + "x" * 43, "nonsense", "a.b.c", TEST_TOKEN])
def test_a_wrong_key_is_refused_even_where_none_is_needed(keys: KeyStore, token: str) -> None:
    assert ask(app(ServeSettings(), keys), token=token).status_code == 401


def test_the_test_token_works_in_debug_on_loopback_only(keys: KeyStore) -> None:
    assert ask(app(ServeSettings(debug=True), keys), token=TEST_TOKEN).json()["who"] == "test-user"
    assert ask(app(ServeSettings(debug=True, host="0.0.0.0"), keys), token=TEST_TOKEN).status_code == 401


def test_a_revoked_key_is_refused(keys: KeyStore) -> None:
    new = keys.create("reader", ["read"])
    keys.revoke(new.key.id)
    assert ask(app(ServeSettings(host="0.0.0.0"), keys), token=new.secret).status_code == 401


def test_a_token_signed_with_the_secret_is_a_key() -> None:
    settings = ServeSettings(host="0.0.0.0", secret_key=SECRET)
    gate = app(settings)
    assert ask(gate, token=make_jwt(settings, "me", ["read"])).json()["who"] == "jwt:me"
    assert ask(gate, method="POST", token=make_jwt(settings, "me", ["read"])).status_code == 403


@pytest.mark.parametrize(
    ("claims", "secret", "algorithm"),
    [
        ({"sub": "me", "scopes": ["admin"], "exp": datetime.now(UTC) - timedelta(minutes=1)}, "s" * 32, "HS256"),
        ({"sub": "me", "scopes": ["admin"]}, "s" * 32, "HS256"),
        ({"sub": "me", "scopes": ["admin"], "exp": 2**33}, "t" * 32, "HS256"),
        ({"sub": "me", "scopes": ["admin"], "exp": 2**33}, "", "none"),
    ],
    ids=["expired", "without end", "of another secret", "unsigned"],
)
def test_a_token_that_is_not_good_is_refused(claims: dict[str, Any], secret: str, algorithm: str) -> None:
    settings = ServeSettings(host="0.0.0.0", secret_key=SECRET)
    assert ask(app(settings), token=jwt.encode(claims, secret, algorithm)).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000"])
def test_a_foreign_host_name_is_refused_on_loopback(host: str) -> None:
    assert ask(app(ServeSettings()), host=host).status_code == 421
    assert ask(app(ServeSettings(trusted_hosts=("*",))), host=host).status_code == 200


def test_a_large_body_is_refused_whether_its_length_is_told_or_not() -> None:
    gate = app(ServeSettings(max_body_bytes=1024))

    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 512

    assert ask(gate, method="POST", content=b"x" * 1024).status_code == 200
    told = ask(gate, method="POST", content=b"x" * 1025)
    assert (told.status_code, told.json()["error"]) == (413, "ContentTooLarge")
    assert ask(gate, method="POST", content=chunks()).status_code == 413


def test_a_flood_of_headers_is_refused() -> None:
    headers = {f"x-{index}": "y" * 100 for index in range(400)}
    assert ask(app(ServeSettings()), headers=headers).status_code == 431


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    gate = app(ServeSettings(rate_limit_per_minute=10))
    assert ask(gate).status_code == 200
    refused = ask(gate)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert ask(gate, "/health").status_code == 200


def test_a_request_keeps_the_id_it_came_with_unless_it_is_nonsense() -> None:
    gate = app(ServeSettings())
    assert ask(gate, headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    assert ask(gate, headers={"X-Request-ID": "<script>"}).headers["X-Request-ID"] != "<script>"


def test_an_error_of_ours_shows_nothing_of_its_inside() -> None:
    answer = ask(app(ServeSettings()), "/broken")
    assert answer.status_code == 500
    assert "division" not in answer.text
    assert json.loads(answer.text)["error"] == "InternalServerError"


def test_requests_are_counted_by_route_and_status() -> None:
    telemetry = Telemetry()
    gate = app(ServeSettings(), telemetry=telemetry)
    ask(gate)
    ask(gate, "/no/such/path")
    text = exposition([telemetry.counts()]).decode()
    assert 'rlplatform_http_requests_total{method="GET",route="/experiments",status="200"} 1.0' in text
    assert 'route="unmatched",status="404"' in text


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/", "open"),
        ("GET", "/health", "open"),
        ("GET", "/healthy", "admin"),
        ("HEAD", "/experiments", "read"),
        ("POST", "/inference", "infer"),
        ("POST", "/v2/models/m/infer", "infer"),
        ("POST", "/train", "train"),
        ("DELETE", "/experiments/x", "train"),
        ("DELETE", "/models/m", "admin"),
        ("POST", "/keys", "admin"),
    ],
)
def test_every_path_needs_a_scope_and_an_unknown_one_the_highest(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path) == scope
