"""Settings of the platform, from ``RLPLATFORM_…`` variables, else from ``.env`` in the current folder.

What one run is asked to do stands in its spec; here stands what is the same for all runs on a machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rlplatform.names import DEFAULT_HOME, ENV_PREFIX
from rlplatform.specs.problems import joined, shown


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

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


def load_settings() -> Settings:
    """Read the settings: a variable wins over ``.env``, ``.env`` over the default.

    Raises:
        SpecError: If a variable has a value that its setting does not take.
    """
    try:
        return Settings()
    except ValidationError as err:
        raise joined(
            [
                f"`{ENV_PREFIX}{'_'.join(map(str, error['loc'])).upper()}` must be "
                f"{error.get('ctx', {}).get('expected', 'valid')}, got {shown(error['input'])}. "
                "It is set in the environment or in .env."
                for error in err.errors()
            ]
        ) from err
