"""How commands print: tables and JSON to stdout, everything else to stderr, so that output can be piped."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

MISSING = "—"
_GAP = 3
"""Blanks between two columns of a table on a terminal."""


def print_json(value: Any) -> None:
    """Print a value as indented JSON; dataclasses and pydantic models become objects."""
    print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, fitted to a terminal; elsewhere each row is one line, however long.

    Args:
        columns: Their heads; one that starts with `>` is aligned right.
        rows: As many cells each.
    """
    cells = [tuple(row) for row in rows]
    if not sys.stdout.isatty():
        print(*_aligned([tuple(column.removeprefix(">") for column in columns), *cells], columns), sep="\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    screen = shutil.get_terminal_size()
    heads = [column.removeprefix(">") for column in columns]
    widths = _widths([heads, *cells], screen.columns - _GAP * len(heads))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head, column, width in zip(heads, columns, widths, strict=True):
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(head, justify=side, width=width)
    for row in cells:
        table.add_row(*row)
    wide = max(screen.columns, sum(widths) + _GAP * len(heads))
    # Both sides are given: with one alone, rich takes a dumb terminal for 80 columns.
    Console(markup=False, highlight=False, width=wide, height=screen.lines).print(table)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one pair on each line."""
    print(*_aligned(list(fields.items()), ("", "")), sep="\n")


def say(*lines: str) -> None:
    """Print lines for people on stderr."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def next_commands(*commands: tuple[str, str]) -> None:
    """Print what can be typed next: pairs of a command, its paths quoted for a shell, and what it does."""
    typed = [(_typed(command), meaning) for command, meaning in commands]
    width = max(len(command) for command, _ in typed)
    say("", "Next:", *(f"  {command:<{width}}  {meaning}" for command, meaning in typed))


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with thousands separators, or a dash for None."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def interval(mean: float | None, low: float | None, high: float | None) -> str:
    """Return `mean [low, high]`, or a dash."""
    if mean is None or low is None or high is None:
        return number(mean)
    return f"{mean:,.1f} [{low:,.1f}, {high:,.1f}]"


def duration(seconds: float | None) -> str:
    """Return seconds as `h:mm:ss` or `m:ss`, or a dash for None."""
    if seconds is None:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(n_bytes: float) -> str:
    """Return bytes in the unit that leaves one to three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _typed(command: str) -> str:
    """Return a command as it can be typed here: by its path, where its folder is not on PATH."""
    name, _, arguments = command.partition(" ")
    beside = Path(sys.executable).with_name(name)
    if shutil.which(name) is not None or not beside.is_file():
        return command
    return f"{shlex.quote(os.path.relpath(beside))} {arguments}"


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return widths of columns that share `room`, but break no word: half an id cannot be read, nor copied."""
    columns = list(zip(*rows, strict=True))
    natural = [max(map(len, column)) for column in columns]
    least = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    slack = [wide - narrow for wide, narrow in zip(natural, least, strict=True)]
    share = min(1.0, max(0, sum(natural) - room) / max(1, sum(slack)))
    return [wide - math.ceil(share * loose) for wide, loose in zip(natural, slack, strict=True)]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _aligned(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        yield "  ".join(cells).rstrip()
