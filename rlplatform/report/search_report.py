"""Everything that a search leaves for people and programs: leaderboard, pictures, HParams, and the best spec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlplatform import names
from rlplatform.artifacts.atomic import write_text
from rlplatform.artifacts.run_dir import RunDir
from rlplatform.artifacts.search_dir import SearchDir
from rlplatform.report.hparams import write_hparams
from rlplatform.report.leaderboard import LeaderboardRow, evaluations, leaderboard, write_leaderboard
from rlplatform.report.search_plots import write_plots
from rlplatform.specs.load import dump_spec
from rlplatform.specs.search import SearchSpec, apply_point


@dataclass(frozen=True)
class SearchReport:
    """What was written."""

    rows: tuple[LeaderboardRow, ...]
    best: LeaderboardRow | None
    files: tuple[Path, ...]
    """Files and folders, the leaderboard first."""


def write_search_report(search: SearchDir) -> SearchReport:
    """Write the report of a search as it is now, in place of an earlier one.

    Raises:
        StorageError: The search cannot be read, or the report not be written.
        SpecError: search.yaml was edited into something invalid.
    """
    rows = leaderboard(search)
    best = rows[0] if rows and rows[0].rank == 1 else None
    files = write_leaderboard(rows, search.path)
    if best is not None:
        path = search.path / names.BEST_SPEC_FILE
        write_text(path, best_spec(search.id, search.spec(), best))
        files.append(path)
    files += write_plots(rows, search.path / names.PLOTS_DIR, minimise=search.record.objective.mode == "min")
    files.append(write_hparams(search, search.path / names.TENSORBOARD_DIR))
    return SearchReport(tuple(rows), best, tuple(files))


def best_spec(search_id: str, spec: SearchSpec, best: LeaderboardRow) -> str:
    """Return the spec of the best trial as YAML that `rlplatform train` takes as it is.

    Args:
        search_id: Where it comes from, for its heading.
        spec: The search.
        best: Its best trial.
    """
    of = f"{spec.objective.of} evaluation of {best.seeds} seed{'' if best.seeds == 1 else 's'}"
    lines = [
        f"# Trial {best.trial} of search {search_id}: {spec.objective.metric} {best.value:.6g}, {of}, "
        f"{best.step:,} steps each.",
        *(f"# {name}: {value}" for name, value in best.point.items()),
    ]
    if spec.mutations:
        lines.append(
            f"# {spec.scheduler.name} changed parameters while the trial trained. These are its last ones; a new run "
            "has them from its first step, and need not come to the same."
        )
    return "\n".join(lines) + "\n" + dump_spec(apply_point(spec.run, best.point, f"trial {best.trial}"))


def best_run(search: SearchDir, best: LeaderboardRow) -> RunDir:
    """Return the run to publish of a trial: that of the seed which evaluated best, as the objective looks at it.

    Raises:
        StorageError: The search cannot be read.
    """
    objective = search.record.objective
    sign = 1.0 if objective.mode == "max" else -1.0

    def score(run: RunDir) -> float:
        values = [sign * value for value in evaluations(run, objective.metric).values()]
        return (max(values) if objective.of == "best" else values[-1]) if values else float("-inf")

    return max((RunDir(search.home / run) for run in best.runs), key=score)
