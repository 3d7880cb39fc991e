"""Who asks, and what they may: API keys, JWTs, and the scope that each path needs.

Scopes: `read` looks, `infer` asks policies, `train` creates and changes experiments, `admin` may do everything. A path
that is in no rule needs `admin`, so that a new one is closed until somebody says otherwise.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

import jwt

from rlplatform.errors import SpecError
from rlplatform.serve.refusals import HttpError
from rlplatform.serve.settings import PREFIX, ServeSettings
from rlplatform.store.keys import SCOPES, KeyStore

Scope = Literal["open", "read", "infer", "train", "admin"]
TEST_TOKEN = "test-token"
JWT_ALGORITHM = "HS256"
CHECK_TTL_S = 2.0
"""How long a checked key is believed: a revoked one works this much longer at most."""
MAX_CACHED = 10_000

_RULES: tuple[tuple[str, str, Scope], ...] = (
    # method, path prefix ("$" ends it), scope; the first that fits counts
    ("GET", "/$", "open"),
    ("GET", "/health$", "open"),
    ("GET", "/v2/health/", "open"),
    ("GET", "/docs", "open"),
    ("GET", "/redoc$", "open"),
    ("GET", "/openapi.json$", "open"),
    ("POST", "/inference", "infer"),
    ("WEBSOCKET", "/inference", "infer"),
    ("GET", "/deployments/", "infer"),
    ("POST", "/deployments/", "infer"),
    ("WEBSOCKET", "/deployments/", "infer"),
    ("GET", "/v2", "infer"),
    ("POST", "/v2/", "infer"),
    ("GET", "/models", "read"),
    ("GET", "/experiments", "read"),
    ("GET", "/training/", "read"),
    ("GET", "/environments$", "read"),
    ("GET", "/algorithms$", "read"),
    ("GET", "/rewards$", "read"),
    ("GET", "/config$", "read"),
    ("GET", "/metrics$", "read"),
    ("GET", "/api/v1/", "read"),
    ("POST", "/experiments", "train"),
    ("PUT", "/experiments/", "train"),
    ("DELETE", "/experiments/", "train"),
    ("POST", "/train$", "train"),
    ("POST", "/training/", "train"),
    ("POST", "/models/", "train"),
    ("PUT", "/models/", "train"),
)


@lru_cache(4096)
def scope_of(method: str, path: str) -> Scope:
    """Return the scope that a request needs."""
    if method == "HEAD":
        method = "GET"
    for rule_method, prefix, scope in _RULES:
        exact = prefix.endswith("$")
        if rule_method == method and (path == prefix[:-1] if exact else path.startswith(prefix)):
            return scope
    return "admin"


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    name: str
    scopes: frozenset[str]
    rate_per_minute: float | None = None
    """Requests a minute. None: the service's own limit."""
    max_runs: int | None = None
    """Experiments that may train together. None: the service's own limit."""
    max_steps: int | None = None
    """Most environment steps of one experiment. None: the service's own limit."""
    max_hours: float | None = None
    """Longest training of one experiment. None: the service's own limit."""

    def may(self, scope: Scope) -> bool:
        """Whether this scope is granted."""
        return scope == "open" or scope in self.scopes or "admin" in self.scopes


class Authenticator:
    """Turns the header `Authorization` into a `Principal`."""

    def __init__(self, settings: ServeSettings, keys: KeyStore | None) -> None:
        """Check against a store of keys, and against the secret of the settings."""
        self._settings, self._keys = settings, keys
        secret = settings.secret_key
        self._secret = secret.get_secret_value() if secret else None
        self._checked: dict[bytes, tuple[float, Principal]] = {}

    def authenticate(self, header: str | None, client: str) -> Principal:
        """Return who sent a request.

        Args:
            header: The value of `Authorization`.
            client: The sender's address, which stands for somebody without a key.

        Raises:
            HttpError: 401: a key is needed and missing, or the one given is not good.
        """
        if header is None:
            if self._settings.is_open:
                return Principal(f"anonymous@{client}", frozenset(SCOPES))
            raise _unauthorized(
                "A key is needed. Send `Authorization: Bearer KEY`; `rlplatform keys create` makes one."
            )
        kind, _, secret = header.partition(" ")
        secret = secret.strip()
        if kind.lower() != "bearer" or not secret:
            raise _unauthorized("`Authorization` must be `Bearer KEY`.")
        digest = hashlib.sha256(secret.encode()).digest()
        known = self._checked.get(digest)
        if known and known[0] > time.monotonic():
            return known[1]
        principal = self._check(secret)
        if principal is None:
            raise _unauthorized("The key or token is not good: unknown, revoked or out of date. Get a new one.")
        if len(self._checked) >= MAX_CACHED:
            self._checked.clear()
        self._checked[digest] = (time.monotonic() + CHECK_TTL_S, principal)
        return principal

    def _check(self, secret: str) -> Principal | None:
        settings = self._settings
        if secret == TEST_TOKEN and settings.debug and settings.on_loopback:
            return Principal("test-user", frozenset(SCOPES))
        if self._secret is not None and secret.count(".") == 2:
            return _read_jwt(secret, self._secret)
        key = self._keys.check(secret) if self._keys else None
        if key is None:
            return None
        return Principal(key.id, frozenset(key.scopes), key.rate_per_min, key.max_runs, key.max_steps, key.max_hours)


def make_jwt(settings: ServeSettings, name: str, scopes: Sequence[str]) -> str:
    """Return a signed token that the service takes as a key until it expires.

    Raises:
        SpecError: There is no secret to sign with, or a scope is unknown.
    """
    if settings.secret_key is None:
        raise SpecError(
            f"Tokens are signed with `{PREFIX}SECRET_KEY`, which is not set. Set it, here and for the service."
        )
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise SpecError(f"Unknown scope {unknown[0]!r}. Known: {', '.join(SCOPES)}.")
    expires = datetime.now(UTC) + timedelta(minutes=settings.access_token_expire_minutes)
    claims = {"sub": name, "scopes": list(scopes), "exp": expires}
    return jwt.encode(claims, settings.secret_key.get_secret_value(), JWT_ALGORITHM)


def _read_jwt(token: str, secret: str) -> Principal | None:
    try:
        claims = jwt.decode(token, secret, algorithms=[JWT_ALGORITHM], options={"require": ["exp", "sub"]})
    except jwt.PyJWTError:
        return None
    scopes = claims.get("scopes", [])
    scopes = scopes.split() if isinstance(scopes, str) else scopes
    if not isinstance(scopes, list) or not isinstance(claims["sub"], str):
        return None
    return Principal(f"jwt:{claims['sub']}", frozenset(scope for scope in scopes if scope in SCOPES))


def _unauthorized(message: str) -> HttpError:
    return HttpError(401, message, headers={"WWW-Authenticate": "Bearer"})
