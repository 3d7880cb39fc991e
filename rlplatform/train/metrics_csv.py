"""metrics.csv: the records of metrics.jsonl as one table, for spreadsheets."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from rlplatform import names
from rlplatform.artifacts.atomic import write_text
from rlplatform.artifacts.jsonl import read_jsonl


def write_csv(records_path: Path, table_path: Path) -> None:
    """Write a table with the step first, then a column for each key in alphabetical order; an absent value is empty.

    Args:
        records_path: The run's metrics.jsonl.
        table_path: The file to write.
    """
    records = list(read_jsonl(records_path))
    keys = sorted({key for record in records for key in record} - {names.STEP})
    text = io.StringIO()
    writer = csv.DictWriter(text, [names.STEP, *keys], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(table_path, text.getvalue())
