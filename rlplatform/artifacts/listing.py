"""A folder of folders, each with a record: runs, searches, comparisons. How they are named, found and listed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from rlplatform.errors import RunNotFound, StorageError, did_you_mean
from rlplatform.logs import get_logger
from rlplatform.names import HOME_ENV_VAR

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


def new_name(title: str, now: datetime) -> str:
    """Return a name for a folder that begins with a title and that no other folder has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.")
    return f"{plain}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def beginning_with(text: str, known: Collection[str]) -> list[str]:
    """Return the known names that a text stands for: itself, else those that begin with it; none if it is empty."""
    return [text] if text in known else [name for name in known if text and name.startswith(text)]


def find_folder(root: Path, text: str, kind: str, hint: str) -> Path:
    """Return the folder in ``root`` that has a name, or is the only one whose name begins so.

    Args:
        root: The folder that holds them, called as several of them are.
        text: The name, or its beginning.
        kind: What one of them is.
        hint: How to make one, said where there is none.

    Raises:
        RunNotFound: If there is no such folder, or several begin so.
    """
    known = folder_names(root)
    begins = beginning_with(text, known)
    if len(begins) == 1:
        return root / begins[0]
    if begins:
        some = ", ".join(begins[:5])
        raise RunNotFound(f"{len(begins)} {root.name} begin with {text!r}: {some}. Give more of the id.")
    hint = did_you_mean(text, known) if known else f"It holds none. {hint}, or set {HOME_ENV_VAR}."
    raise RunNotFound(f"There is no {kind} {text!r} in {root}. {hint}")


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
