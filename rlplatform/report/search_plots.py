"""Pictures of a search as SVG: how it went, where good points lie, and which parameters mattered.

Figures are made without pyplot, so nothing is global: no backend is chosen, and any thread or process may draw.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from pydantic import JsonValue

from rlplatform.artifacts.atomic import storage_errors, write_text
from rlplatform.report.importance import as_numbers, importances, spans_decades
from rlplatform.report.leaderboard import LeaderboardRow

HISTORY_FILE = "history.svg"
PARALLEL_FILE = "parallel_coordinates.svg"
IMPORTANCES_FILE = "importances.svg"
MAX_TICKS = 12
"""Values of a parameter without an order that are written beside its axis."""


def write_plots(rows: Sequence[LeaderboardRow], folder: Path, *, minimise: bool = False) -> list[Path]:
    """Draw what there is to draw and return the files; a picture that would say nothing is not made.

    Args:
        rows: The trials in any order; those without a value are left out.
        folder: Where to; it is made.
        minimise: The lowest value is the best.

    Raises:
        StorageError: The folder cannot be written.
    """
    scored = sorted((row for row in rows if row.value is not None), key=lambda row: row.number)
    if not scored:
        return []
    figures = {
        HISTORY_FILE: draw_history(scored, minimise=minimise),
        PARALLEL_FILE: draw_parallel_coordinates(scored, minimise=minimise),
        IMPORTANCES_FILE: draw_importances(scored),
    }
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            write_text(folder / name, _svg(figure))
            written.append(folder / name)
    return written


def draw_history(rows: Sequence[LeaderboardRow], *, minimise: bool = False) -> Figure:
    """Draw the value of each trial, and the best so far, in the order in which trials began.

    Args:
        rows: Trials with a value, by number; at least one.
        minimise: The lowest value is the best.
    """
    numbers, values = [row.number for row in rows], np.array([_value(row) for row in rows])
    figure, axes = _figure(7.0, 4.0)
    done = np.array([row.state == "completed" for row in rows])
    for mask, marker, label in ((done, "o", "trial"), (~done, "x", "trial, not trained to the end")):
        if mask.any():
            axes.scatter(np.array(numbers)[mask], values[mask], s=22, marker=marker, color="tab:blue", label=label)
    axes.step(
        numbers,
        (np.minimum if minimise else np.maximum).accumulate(values),
        where="post",
        color="tab:orange",
        label="best so far",
    )
    axes.set(xlabel="trial", ylabel="value", title="How the search went")
    axes.legend()
    return figure


def draw_parallel_coordinates(rows: Sequence[LeaderboardRow], *, minimise: bool = False) -> Figure | None:
    """Draw each trial as a line over an axis for each parameter and one for the value, the best on top.

    A line has a gap where a trial did not have a parameter. None: no parameter varied.

    Args:
        rows: Trials with a value; at least one.
        minimise: The lowest value is the best.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.point))
    columns: dict[str, list[JsonValue]] = {name: [row.point.get(name) for row in rows] for name in names}
    columns = {name: column for name, column in columns.items() if any(value != column[0] for value in column)}
    if not columns:
        return None
    values = [_value(row) for row in rows]
    figure, axes = _figure(2.0 + 1.7 * len(columns), 4.6)
    heights = np.stack(
        [_axis(axes, at, name, column) for at, (name, column) in enumerate(columns.items())]
        + [_axis(axes, len(columns), "value", list(values))]
    )
    low, high = min(values), max(values)
    norm = mpl.colors.Normalize(low, high if high > low else low + 1)
    colors = mpl.colormaps["viridis"]
    order = np.argsort([-value if minimise else value for value in values], kind="stable")
    for place, index in enumerate(order):
        best = place == len(order) - 1
        axes.plot(
            heights[:, index],
            color="tab:red" if best else colors(norm(values[index])),
            alpha=1.0 if best else 0.6,
            linewidth=2.5 if best else 1.0,
            marker=".",
        )
    axes.set(xlim=(-0.3, len(columns) + 0.5), ylim=(-0.05, 1.05), title=f"{len(rows)} trials; the best in red")
    axes.set_xticks(range(len(columns) + 1), [*(name.replace(".", ".\n") for name in columns), "value"])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def draw_importances(rows: Sequence[LeaderboardRow]) -> Figure | None:
    """Draw the share of the variance that each parameter explains; None where too little is known.

    Args:
        rows: Trials with a value.
    """
    shares = importances([row.point for row in rows], [_value(row) for row in rows])
    if not shares:
        return None
    figure, axes = _figure(7.0, 1.6 + 0.35 * len(shares))
    bars = axes.barh([one.parameter for one in reversed(shares)], [one.share for one in reversed(shares)])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), xlabel="share of the variance explained", title=f"fANOVA over {len(rows)} trials")
    return figure


def _axis(axes: Any, at: int, name: str, column: Sequence[JsonValue]) -> np.ndarray:
    """Draw one vertical axis with its labels and return the height of each trial on it, NaN where it has no value."""
    axes.axvline(at, color="0.75", linewidth=1, zorder=0)
    there = [value for value in column if value is not None]
    numbers = as_numbers(there)
    if numbers is not None:
        scale = np.log10 if name != "value" and spans_decades(numbers) else np.asarray
        low, high = float(scale(min(numbers))), float(scale(max(numbers)))
        span = high - low or 1.0
        for height, text in ((0.0, f"{min(numbers):.4g}"), (1.0, f"{max(numbers):.4g}")):
            _label(axes, at, height, text)
        heights = np.full(len(column), np.nan)
        heights[[value is not None for value in column]] = (scale(numbers) - low) / span
        return heights
    kinds = sorted({str(value) for value in there})
    place = {kind: index / max(1, len(kinds) - 1) for index, kind in enumerate(kinds)}
    for kind in kinds[:: -(-len(kinds) // MAX_TICKS)]:
        _label(axes, at, place[kind], kind)
    return np.array([np.nan if value is None else place[str(value)] for value in column])


def _label(axes: Any, at: int, height: float, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    axes.annotate(
        text, (at, height), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center", bbox=box, zorder=5
    )


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """Return an empty figure of a size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    # Without a date and with a fixed salt, the same trials make the same bytes.
    with mpl.rc_context({"svg.hashsalt": "rlplatform"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _value(row: LeaderboardRow) -> float:
    assert row.value is not None
    return row.value
