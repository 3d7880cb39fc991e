"""Looking through a folder of folders, each with a record: runs, searches."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from rlplatform.errors import StorageError
from rlplatform.logs import get_logger

_log = get_logger(__name__)


class Dated(Protocol):
    """A record that says what it is of, and since when that has been."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def created_at(self) -> datetime:
        """When it was made."""


_Record = TypeVar("_Record", bound=Dated)


def folder_names(root: Path) -> list[str]:
    """Return the names of the folders in ``root``, hidden ones left out; none if there is no ``root``."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except FileNotFoundError:
        return []


def newest_first(root: Path, read: Callable[[Path], _Record]) -> list[_Record]:
    """Return the records of all folders in ``root``, newest first; unreadable ones are logged and left out."""
    records = []
    for name in folder_names(root):
        try:
            records.append(read(root / name))
        except StorageError as error:
            _log.warning("%s", error)
    return sorted(records, key=lambda record: (record.created_at, record.id), reverse=True)
