from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlplatform.artifacts.jsonl import JsonlWriter, read_jsonl, truncate_file
from rlplatform.errors import StorageError


def write(path: Path, *steps: int) -> int:
    writer = JsonlWriter(path)
    for step in steps:
        writer.append({"step": step})
    size = writer.sync()
    writer.close()
    return size


def steps_in(path: Path) -> list[int]:
    return [record["step"] for record in read_jsonl(path)]


def test_records_come_back_in_order_and_appending_goes_on_after_reopening(tmp_path: Path) -> None:
    write(tmp_path / "m.jsonl", 1, 2)
    write(tmp_path / "m.jsonl", 3)
    assert steps_in(tmp_path / "m.jsonl") == [1, 2, 3]


def test_a_missing_file_has_no_records(tmp_path: Path) -> None:
    assert steps_in(tmp_path / "m.jsonl") == []


def test_numbers_that_are_not_finite_become_null_and_numpy_scalars_become_numbers(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.append({"a": float("nan"), "b": [float("inf"), 1.5], "c": np.float32(0.5), "d": np.int64(7), "e": True})
    writer.close()
    assert list(read_jsonl(tmp_path / "m.jsonl")) == [{"a": None, "b": [None, 1.5], "c": 0.5, "d": 7, "e": True}]


def test_a_record_is_readable_before_the_file_is_closed(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.append({"step": 1})
    assert steps_in(tmp_path / "m.jsonl") == [1]
    writer.close()


@pytest.mark.parametrize("torn", ['{"step":', '{"step":3}', "\N{SNOWMAN}"])
def test_a_torn_last_line_is_passed_over(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 1, 2)
    path.write_bytes(path.read_bytes() + torn.encode())
    assert steps_in(path) == [1, 2]


@pytest.mark.parametrize("line", ["{not json}", "[1]", "\\xff"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step":1}\n' + line + '\n{"step":3}\n')
    with pytest.raises(StorageError, match=r"m\.jsonl:2 is not"):
        steps_in(path)


def test_truncate_cuts_back_to_a_checkpoint_torn_line_included(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    size = write(path, 1, 2)
    write(path, 3)
    path.write_bytes(path.read_bytes() + b'{"st')
    writer = JsonlWriter(path)
    writer.truncate(size)
    assert writer.size() == size
    writer.append({"step": 30})
    writer.close()
    assert steps_in(path) == [1, 2, 30]


def test_truncate_to_nothing_makes_an_empty_file(tmp_path: Path) -> None:
    truncate_file(tmp_path / "m.jsonl", 0)
    assert (tmp_path / "m.jsonl").read_bytes() == b""


def test_truncate_refuses_a_file_that_lost_bytes(tmp_path: Path) -> None:
    size = write(tmp_path / "m.jsonl", 1)
    with pytest.raises(StorageError, match=f"has {size} bytes, but the checkpoint was taken when it had {size + 1}"):
        truncate_file(tmp_path / "m.jsonl", size + 1)
    assert steps_in(tmp_path / "m.jsonl") == [1]


def test_opening_below_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        JsonlWriter(tmp_path / "missing" / "m.jsonl")
