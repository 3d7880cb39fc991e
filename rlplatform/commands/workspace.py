"""Where commands read and write: RLPLATFORM_HOME, as the environment or `.env` says."""

from __future__ import annotations

from pathlib import Path

from rlplatform.logs import configure
from rlplatform.names import LOGS_DIR
from rlplatform.specs.settings import load_settings


def home() -> Path:
    """Return the absolute folder below which everything is written.

    Raises:
        SpecError: A setting is not valid.
    """
    return load_settings().home


def start_logs() -> None:
    """Send the log to the terminal and to files in the home, for commands that do real work.

    Raises:
        SpecError: A setting is not valid.
        StorageError: The home cannot be written.
    """
    settings = load_settings()
    configure(settings.home / LOGS_DIR, settings.log_level)
