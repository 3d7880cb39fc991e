"""Logging of the whole package: one set-up, JSON lines on disk, short lines on the terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rlplatform.errors import StorageError

ROOT_LOGGER = "rlplatform"
LOG_FILE = "rlplatform.log"
ERROR_FILE = "errors.log"
MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 5

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object for each record: time (UTC), level, logger, message, process, `extra`, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        # Ray's own record factory adds fields that begin with an underscore.
        extra = vars(record).keys() - _STANDARD_FIELDS
        entry |= {key: getattr(record, key) for key in sorted(extra) if not key.startswith("_")}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TerminalFormatter(logging.Formatter):
    """One short line for each record; the traceback is for the files."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        short = logging.makeLogRecord({**vars(record), "exc_info": None, "exc_text": None, "stack_info": None})
        return super().format(short)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module of this package.

    Args:
        name: The module's ``__name__``; a name from elsewhere is put below ``rlplatform``.
    """
    inside = name == ROOT_LOGGER or name.startswith(ROOT_LOGGER + ".")
    return logging.getLogger(name if inside else f"{ROOT_LOGGER}.{name}")


def configure(log_dir: Path | None, level: str = "INFO", json: bool = True, terminal: bool = True) -> None:
    """Send the package's log to the terminal's stderr and, if ``log_dir`` is given, to rotating files in it.

    ``rlplatform.log`` gets everything of at least ``level``, ``errors.log`` errors only; each turns over at 10 MB and
    keeps five old files. Calling again replaces what was set before.

    Args:
        log_dir: The folder for the files, made if missing. None: no files.
        level: The least severe level to log: DEBUG, INFO, WARNING or ERROR.
        json: Write the files as JSON lines instead of plain text. The terminal gets plain text without tracebacks.
        terminal: Also write to stderr.

    Raises:
        StorageError: If the folder or its files cannot be made.
    """
    root = logging.getLogger(ROOT_LOGGER)
    for handler in tuple(root.handlers):
        root.removeHandler(handler)
        handler.close()
    line, clock = "%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"
    if terminal:
        stderr = logging.StreamHandler(sys.stderr)
        stderr.setFormatter(TerminalFormatter(line, clock))
        root.addHandler(stderr)
    root.setLevel(level.upper())
    root.propagate = False
    if log_dir is None:
        return
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        for name, file_level in ((LOG_FILE, level.upper()), (ERROR_FILE, "ERROR")):
            handler = RotatingFileHandler(log_dir / name, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
            handler.setLevel(file_level)
            handler.setFormatter(JsonFormatter() if json else logging.Formatter(line, clock))
            root.addHandler(handler)
    except OSError as error:
        raise StorageError(
            f"Logs cannot be written to {log_dir} ({error.strerror}). Set RLPLATFORM_HOME to a folder "
            "that you may write to."
        ) from error
