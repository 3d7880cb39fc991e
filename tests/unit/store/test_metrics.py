"""Metrics are read by steps and keys, thinned without losing spikes, and followed over a resume."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.jsonl import JsonlWriter
from rlplatform.errors import SpecError, StorageError
from rlplatform.names import EVAL_RETURN_MEAN, METRICS_FILE, ROLLOUT_RETURN_MEAN, STEP
from rlplatform.store.metrics import BEGINNING, Mark, MetricsTail, Record, follow, read_metrics, thin


def write(run: Path, records: Sequence[Record]) -> None:
    with open(run / METRICS_FILE, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def steps(records: Sequence[Record]) -> list[int]:
    return [record[STEP] for record in records]


def curve(n: int, **spikes: float) -> list[Record]:
    return [{STEP: i, "a": float(i), ROLLOUT_RETURN_MEAN: spikes.get(f"at_{i}", 1.0)} for i in range(n)]


def test_a_run_that_has_not_begun_has_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    assert MetricsTail(tmp_path / "nowhere").read() == []


def test_steps_and_keys_select(tmp_path: Path) -> None:
    write(tmp_path, [{STEP: step, "a": step / 2, "b": -step} for step in (10, 20, 30)])
    write(tmp_path, [{STEP: 40, "b": 0}])
    assert steps(read_metrics(tmp_path)) == [10, 20, 30, 40]
    assert steps(read_metrics(tmp_path, start=20, end=30)) == [20, 30]
    assert read_metrics(tmp_path, ["a"], start=30) == [{STEP: 30, "a": 15.0}]
    assert read_metrics(tmp_path, ["none"]) == []
    assert read_metrics(tmp_path, start=50) == []


def test_what_was_measured_at_one_step_is_one_record(tmp_path: Path) -> None:
    write(tmp_path, [{STEP: 1, "a": 1}, {STEP: 1, EVAL_RETURN_MEAN: 2}, {STEP: 2, "a": 3}])
    assert read_metrics(tmp_path) == [{STEP: 1, "a": 1, EVAL_RETURN_MEAN: 2}, {STEP: 2, "a": 3}]


def test_a_line_being_written_is_not_read_yet(tmp_path: Path) -> None:
    write(tmp_path, [{STEP: 1, "a": 1}])
    path = tmp_path / METRICS_FILE
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 2, "a"', encoding="utf-8")
    tail = MetricsTail(tmp_path)
    assert steps(read_metrics(tmp_path)) == [1]
    assert [found.record[STEP] for found in tail.read()] == [1]
    path.write_text(path.read_text(encoding="utf-8") + ": 5}\n", encoding="utf-8")
    assert [found.record for found in tail.read()] == [{STEP: 2, "a": 5}]


@pytest.mark.parametrize("max_points", [4, 5, 10, 99, 100])
@pytest.mark.parametrize("n", [3, 100, 101])
def test_thinning_keeps_both_ends_and_never_exceeds_the_bound(n: int, max_points: int) -> None:
    records = curve(n, at_50=9.0, at_60=-9.0)
    for keys in (None, ["a"], [ROLLOUT_RETURN_MEAN, "a"], ["a", "b", "c", "d", "e", "f"]):
        kept = thin(records, max_points, keys)
        assert len(kept) <= max_points
        assert (kept[0], kept[-1]) == (records[0], records[-1])
        assert steps(kept) == sorted(set(steps(kept)))
    assert thin(records, n) == records


def test_thinning_keeps_spikes() -> None:
    kept = steps(thin(curve(1000, at_501=50.0, at_77=-3.0), 20))
    assert {501, 77} <= set(kept)


def test_thinning_by_a_key_that_is_rarely_measured_keeps_it() -> None:
    records = curve(1000)
    records[123][EVAL_RETURN_MEAN] = 5.0
    assert 123 in steps(thin(records, 20))
    records[321]["b"] = None
    records[322]["b"] = 7.0
    assert 322 in steps(thin(records, 20, ["b"]))


def test_too_few_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="`max_points` must be at least 4, got 3"):
        read_metrics(tmp_path, max_points=3)


def test_a_tail_gives_each_record_once(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path, ["a"])
    write(tmp_path, [{STEP: 1, "a": 1}, {STEP: 1, "b": 1}])
    assert [tuple(found) for found in tail.read()] == [({STEP: 1, "a": 1}, Mark(1, 1))]
    assert tail.read() == []
    write(tmp_path, [{STEP: 1, "a": 2}, {STEP: 2, "a": 3}])
    assert [tuple(found) for found in tail.read()] == [({STEP: 1, "a": 2}, Mark(1, 3)), ({STEP: 2, "a": 3}, Mark(2, 1))]


@pytest.mark.parametrize("polled_while_short", [True, False])
def test_a_resumed_run_repeats_nothing(tmp_path: Path, polled_while_short: bool) -> None:
    tail = MetricsTail(tmp_path)
    writer = JsonlWriter(tmp_path / METRICS_FILE)
    writer.append({STEP: 1, "a": 1, "time/fps": 10})
    checkpoint = writer.sync()
    writer.append({STEP: 2, "a": 2, "time/fps": 10})
    writer.append({STEP: 2, "b": 2})
    assert [found.mark for found in tail.read()] == [Mark(1, 1), Mark(2, 1), Mark(2, 2)]
    writer.truncate(checkpoint)
    if polled_while_short:
        assert tail.read() == []
    # Wall-clock readings differ, and with them the lengths of lines.
    writer.append({STEP: 2, "a": 2, "time/fps": 12345.678})
    assert tail.read() == []
    writer.append({STEP: 2, "b": 2})
    writer.append({STEP: 3, "a": 3, "time/fps": 1})
    assert [found.record[STEP] for found in tail.read()] == [3]
    writer.close()


def test_a_tail_goes_on_from_a_mark(tmp_path: Path) -> None:
    write(tmp_path, [{STEP: 1, "a": 1}, {STEP: 2, "a": 2}, {STEP: 2, "b": 2}, {STEP: 3, "a": 3}])
    first = MetricsTail(tmp_path).read()
    again = MetricsTail(tmp_path, after=Mark.parse(str(first[1].mark)))
    assert [found.record for found in again.read()] == [{STEP: 2, "b": 2}, {STEP: 3, "a": 3}]


@pytest.mark.parametrize("text", ["", "1", "1.2.3", "-1.0", "1.x", "9" * 30 + ".1", "1.1\n", "\u0661.\u0661"])
def test_a_mark_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"must be like '2048\.1'"):
        Mark.parse(text)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(StorageError, match="not JSON"):
        read_metrics(tmp_path)
    with pytest.raises(StorageError, match="not JSON"):
        MetricsTail(tmp_path).read()


def test_following_ends_with_the_run_and_misses_nothing(tmp_path: Path) -> None:
    looks = iter((False, False, True))

    def ended() -> bool:
        look = next(looks)
        write(tmp_path, [{STEP: 3 if look else 2, "a": 0}] if (tmp_path / METRICS_FILE).exists() else [{STEP: 1}])
        return look

    async def collect() -> list[Any]:
        return [found.record[STEP] async for found in follow(MetricsTail(tmp_path), ended, poll_s=0.001)]

    assert asyncio.run(collect()) == [1, 2, 3]
    assert BEGINNING < Mark(0, 1) < Mark(1, 0)
