"""A search for TensorBoard's HParams page: the parameters of each trial beside the curve of its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rlplatform.artifacts.atomic import replace_dir
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.report.importance import as_numbers
from rlplatform.report.leaderboard import value_curve
from rlplatform.report.statistics import interquartile_mean

VALUE_TAG = "search/value"


def write_hparams(search: SearchDir, folder: Path) -> Path:
    """Write the trials of a search as TensorBoard events, in place of what is in the folder, and return the folder.

    Raises:
        StorageError: It cannot be written, or the search cannot be read.
    """
    trials, objective = search.trials(), search.record.objective
    columns: dict[str, list[JsonValue]] = {}
    for trial in trials:
        for name, value in trial.point.items():
            columns.setdefault(name, []).append(value)
    with replace_dir(folder) as new:
        _write(new, search.record.created_at.timestamp(), [(0, _experiment(columns))])
        for trial in trials:
            curve = value_curve(search.runs(trial), objective)
            started = (trial.started or search.record.created_at).timestamp()
            point = summary_v2.hparams_pb(
                {name: _scalar(value) for name, value in trial.point.items()}, trial.trial_id, started
            )
            values = [(step, _value(interquartile_mean(seeds).value)) for step, seeds in curve.items()]
            score = trial.score(objective)
            if score is not None:  # last: the page shows the newest value of a trial
                values.append((trial.step, _value(score)))
            _write(new / trial.trial_id, started, [(0, point), *values])
    return folder


def _experiment(columns: Mapping[str, Sequence[JsonValue]]) -> Any:
    """Return the summary that names the parameters, with the range or the list that they were taken from."""
    return summary_v2.hparams_config_pb(
        [summary_v2.HParam(name, _domain(column)) for name, column in columns.items()],
        [summary_v2.Metric(VALUE_TAG, display_name="value")],
        time_created_secs=0.0,
    )


def _domain(column: Sequence[JsonValue]) -> Any:
    numbers = as_numbers(column)
    if numbers is not None:
        return summary_v2.RealInterval(min(numbers), max(numbers))
    kinds = {_scalar(value) for value in column}
    if all(isinstance(kind, bool) for kind in kinds):
        return summary_v2.Discrete(sorted(kinds), dtype=bool)
    return summary_v2.Discrete(sorted({str(kind) for kind in kinds}), dtype=str)


def _scalar(value: JsonValue) -> Any:
    """Return a value as the page can hold it: lists, mappings and null as text."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _value(value: float) -> Summary:
    return Summary(value=[Summary.Value(tag=VALUE_TAG, simple_value=value)])


def _write(folder: Path, wall_time: float, summaries: Sequence[tuple[int, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    writer = EventFileWriter(str(folder))
    for step, summary in summaries:
        writer.add_event(Event(wall_time=wall_time, step=step, summary=summary))
    writer.close()
