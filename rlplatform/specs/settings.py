"""Settings of the platform, from ``RLPLATFORM_…`` variables, else from ``.env`` in the current folder.

What one run is asked to do stands in its spec; here stands what is the same for all runs on a machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from rlplatform.names import DEFAULT_HOME, ENV_PREFIX
from rlplatform.specs.problems import joined, shown

REMOTE_SCHEMES = ("s3", "gs", "abfss")


class Settings(BaseSettings):
    """What ``RLPLATFORM_…`` variables say."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path(DEFAULT_HOME)
    """Folder of everything that is written: runs, models, logs. On a cluster, storage that all nodes share."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe message that is logged."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL of the store of models, experiments and keys. Empty: SQLite in the home, good for one machine."""
    remote: str | None = None
    """Folder in an object store that runs are copied to, such as `s3://bucket/rlplatform`. Empty: they are not."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value() else None

    @field_validator("remote")
    @classmethod
    def _object_store(cls, value: str | None) -> str | None:
        # The messages leave the value out: it may hold a secret.
        if not value:
            return None
        parts = urlsplit(value)
        if parts.scheme not in REMOTE_SCHEMES or not parts.hostname:
            raise ValueError(
                f"must be the address of a folder in an object store ({'://…, '.join(REMOTE_SCHEMES)}://…). "
                "For storage that is mounted, set RLPLATFORM_HOME to its path"
            )
        if parts.password is not None:
            raise ValueError(
                "must not hold a password: it would end in logs. Leave it to AWS_SECRET_ACCESS_KEY, a profile or a role"
            )
        return value


def load_settings() -> Settings:
    """Read the settings: a variable wins over ``.env``, ``.env`` over the default.

    Raises:
        SpecError: If a variable has a value that its setting does not take.
    """
    try:
        return Settings()
    except ValidationError as err:
        raise joined([_in_words(error) for error in err.errors()]) from None


def _in_words(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    rule = context.get("error") or f"must be {context.get('expected', 'valid')}, got {shown(error['input'])}"
    name = "_".join(map(str, error["loc"])).upper()
    return f"`{ENV_PREFIX}{name}` {rule}. It is set in the environment or in .env."
