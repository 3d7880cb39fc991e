"""The command line: the table of commands, and the border at which every error becomes one message and an exit code.

Exit codes: 0 done, 1 our fault, 2 the user's, 130 stopped or paused before it was done. Command modules import what
they need when they run, so that `rlplatform --help` needs neither torch nor Ray.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rlplatform.commands import (
    catalogs,
    compare,
    config,
    demo,
    doctor,
    evaluate,
    jobs,
    keys,
    models,
    resume,
    runs,
    searches,
    serve,
    train,
    tune,
    verify,
)
from rlplatform.errors import RlPlatformError

PROGRAM = "rlplatform"
DEBUG = "--debug"

app = typer.Typer(
    name=PROGRAM,
    help="Train Stable-Baselines3 agents from one YAML file, on Ray, and resume them exactly.",
    epilog="Begin with `rlplatform demo`, or with `rlplatform config init` and `rlplatform train`.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("evaluate")(evaluate.evaluate)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("tune")(tune.tune)
app.add_typer(runs.app, name="runs")
app.add_typer(searches.app, name="searches")
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")
app.command("algorithms")(catalogs.algorithms)
app.command("environments")(catalogs.environments)
app.command("wrappers")(catalogs.wrappers)
app.command("rewards")(catalogs.rewards)
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.add_typer(keys.app, name="keys")
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of errors; may stand anywhere.")] = False,
) -> None:
    """Take the options of every command; `main` reads --debug itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become a message on stderr.

    Args:
        argv: The arguments after the program's name. None: those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in arguments
    try:
        app(
            [argument for argument in arguments if argument != DEBUG], prog_name=PROGRAM, obj="debug" if debug else None
        )
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except RlPlatformError as error:
        return _report(error, str(error), error.exit_code, debug)
    except Exception as error:  # the border: whatever it is, no traceback reaches a user who did not ask for one
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # where stdout goes: the home is StorageError's
            return _report(
                error, f"Output cannot be written: {error.strerror}. Free some, or write elsewhere.", 2, debug
            )
        return _report(error, _log_unexpected(error), 1, debug)
    return 0


def _report(error: Exception, message: str, exit_code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    else:
        print(f"Error: {message}", file=sys.stderr)
    return exit_code


def _log_unexpected(error: Exception) -> str:
    """Keep the traceback of an error that nobody foresaw in the error log, and return the line for its user."""
    from rlplatform import logs, names
    from rlplatform.commands.workspace import home

    summary = " ".join(f"{type(error).__name__}: {error}".split())
    try:
        folder = home() / names.LOGS_DIR
        logs.configure(folder, terminal=False)
        logs.get_logger(__name__).error("unexpected error", exc_info=error)
    except RlPlatformError:
        return f"{summary}. This is a defect of rlplatform; `{DEBUG}` shows where."
    return f"{summary}. This is a defect of rlplatform; its traceback is in {folder / logs.ERROR_FILE}."


if __name__ == "__main__":
    raise SystemExit(main())
