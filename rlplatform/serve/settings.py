"""Settings of the service, from ``RL_API_…`` variables, else from ``.env`` in the current folder.

The names are those of the RL Agent Training API's documents; what those do not know has a name in their style.
Where the platform keeps its files and its database is said by ``RLPLATFORM_…`` variables, for all commands alike.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rlplatform.errors import SpecError
from rlplatform.specs.problems import joined, shown

PREFIX = "RL_API_"
MAX_HYPERPARAMETERS = {
    "n_envs": 256,
    "n_steps": 65_536,
    "batch_size": 65_536,
    "buffer_size": 1_000_000,
    "net_arch": 8192,
    "features_dim": 8192,
    "cnn_output_dim": 8192,
    "lstm_hidden_size": 2048,
    "n_lstm_layers": 8,
    "n_critics": 16,
    "n_quantiles": 1024,
    "n_epochs": 100,
    "gradient_steps": 10_000,
    "n_groups": 256,
    "group_size": 1024,
    "action_horizon": 1024,
    "n_delta": 1024,
    "n_eval_episodes": 100,
    "n_episodes": 1000,
    "final_episodes": 1000,
    "keep_last": 100,
    "stack_size": 64,
    "delay": 1024,
    "skip": 64,
    "shape": 1024,
}
MIN_SECRET_CHARS = 32
Texts = Annotated[tuple[str, ...], NoDecode]


class ServeSettings(BaseSettings):
    """What ``RL_API_…`` variables say."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs a key or a secret."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    debug: bool = False
    """Log in detail, and take the token `test-token` on loopback."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Replicas of the gateway."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe message that is logged."""
    log_dir: Path | None = None
    """Folder of the service's logs. None: `logs/api` under RLPLATFORM_HOME."""

    cors_origins: Texts = ("http://localhost:3000", "http://localhost:8080")
    """Pages that browsers may call from: a list in JSON, or separated by commas."""
    trusted_hosts: Texts = ()
    """Host names that requests may be addressed to. Empty: the loopback names when bound to loopback, else any."""

    secret_key: SecretStr | None = None
    """Key that JWTs are signed with (HS256), of at least 32 characters. None: no JWTs."""
    access_token_expire_minutes: Annotated[int, Field(ge=1)] = 30
    """How long a JWT that is made here is good for."""
    require_auth: bool = False
    """Ask for a key on loopback too."""
    ssl_certfile: Path | None = None
    """PEM file of the TLS certificate and its chain. None: no TLS."""
    ssl_keyfile: Path | None = None
    """PEM file of the certificate's key."""

    max_concurrent_experiments: Annotated[int, Field(ge=1)] = 3
    """Experiments that train together, over everybody."""
    queue_experiments: bool = False
    """Queue what is beyond that limit instead of refusing it with 429."""
    default_timeout_minutes: Annotated[float, Field(gt=0)] = 60
    """Wall-clock limit of one attempt at an experiment's training; it then stops with a checkpoint."""
    max_total_timesteps: Annotated[int, Field(ge=1)] = 10_000_000
    """Most environment steps that one experiment may ask for."""
    max_hyperparameters: dict[str, Annotated[int, Field(ge=1)]] = MAX_HYPERPARAMETERS
    """Largest numbers that an experiment may give, by the names of its options, in JSON; what is left out keeps its
    default, and other options have no limit. Of a list, such as `net_arch`, it is the sum."""
    max_cpus: Annotated[float, Field(gt=0)] = 8
    """Most CPUs that one run may book."""
    shutdown_timeout_s: Annotated[float, Field(ge=0)] = 30
    """How long a shutdown waits for what trains to write its checkpoint."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20
    """Largest body of a request; uploads of bundles have a limit of their own."""
    max_upload_bytes: Annotated[int, Field(ge=1024)] = 256 * 2**20
    """Largest bundle that may be uploaded, packed and unpacked."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 32 * 2**10
    """Most bytes of a request's headers together."""
    rate_limit_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Requests that one key, or all without a key together, may make in a minute. None: no limit."""
    max_streams: Annotated[int, Field(ge=0)] = 64
    """WebSockets and event streams that may be open together on one replica."""
    model_cache_bytes: Annotated[int, Field(ge=2**20)] = 512 * 2**20
    """Memory of one replica for loaded policies; those used longest ago are let go first."""

    @field_validator("cors_origins", "trusted_hosts", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return tuple(json.loads(value))
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("max_hyperparameters")
    @classmethod
    def _beside_defaults(cls, value: dict[str, int]) -> dict[str, int]:
        return MAX_HYPERPARAMETERS | value

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> ServeSettings:
        if self.secret_key is not None and len(self.secret_key.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(
                f"`{PREFIX}SECRET_KEY` must have at least {MIN_SECRET_CHARS} characters. "
                "Make one with `python -c 'import secrets; print(secrets.token_hex(32))'`."
            )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError(f"`{PREFIX}SSL_CERTFILE` and `{PREFIX}SSL_KEYFILE` must be given together.")
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def is_open(self) -> bool:
        """Whether requests without a key are served."""
        return self.on_loopback and not self.require_auth

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that requests may be addressed to; empty: any."""
        if self.trusted_hosts == ("*",):
            return frozenset()
        if self.trusted_hosts:
            return frozenset(host.lower() for host in self.trusted_hosts)
        # A page on the web can make a browser call 127.0.0.1 under a name of its own (DNS rebinding).
        return frozenset({"localhost", "127.0.0.1", "[::1]", self.host.lower()}) if self.on_loopback else frozenset()


def is_loopback(host: str) -> bool:
    """Whether an address or name stands for this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_serve_settings(**overrides: Any) -> ServeSettings:
    """Read the settings: an override wins over a variable, a variable over ``.env``, ``.env`` over the default.

    Args:
        overrides: Values of fields; those that are None are left out.

    Raises:
        SpecError: If a value is not one that its setting takes.
    """
    try:
        return ServeSettings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as err:
        raise joined([_told(error) for error in err.errors()]) from err
    except (ValueError, TypeError) as err:  # a list that is not JSON
        raise SpecError(f"A variable `{PREFIX}…` cannot be read: {err}. Mend it, or leave it out.") from err


def _told(error: Any) -> str:
    if not error["loc"]:
        return str(error["ctx"]["error"])
    name = f"{PREFIX}{'_'.join(map(str, error['loc'][:1])).upper()}"
    rule = error.get("ctx", {}).get("expected") or error["msg"].lower()
    got = "" if "secret" in name.lower() else f", got {shown(error['input'])}"
    return f"`{name}` is not valid: {rule}{got}. It is set in the environment, in .env or as an option."
