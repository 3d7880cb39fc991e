"""Tables as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlplatform.artifacts.atomic import write_text


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV (RFC 4180, but lines end in a newline only), atomically; what a row lacks, or None, is empty.

    Args:
        path: The file.
        rows: Cells by column; the columns stand in the order in which they first occur.

    Raises:
        StorageError: The file cannot be written.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
