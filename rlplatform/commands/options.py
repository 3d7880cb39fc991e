"""Options that several commands share, and the seeds that people write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.errors import SpecError, unknown_name

if TYPE_CHECKING:
    from rlplatform.artifacts.run_state import RunState

MAX_SEEDS = 1_000
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in "dhms"))
_UNITS_S = (86_400.0, 3_600.0, 60.0, 1.0)

Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value, such as algorithm.gamma=0.98; may be repeated."),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Join this Ray cluster. Else RAY_ADDRESS, else a local Ray is started."),
]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Ids, beginnings of ids, or folders.", show_default=False)
]
Which = Annotated[str, typer.Option(metavar="best|last", help="Which of the run's policies.")]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a list such as `1,2,3` or `1-4`, in order and without repetition.

    Raises:
        SpecError: It is no such list.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SpecError(
                f"`--seeds` must be whole numbers of at least 0, got {part.strip()!r}. Write `1,2,3` or `1-4`."
            )
        low, high = int(first), int(last or first)
        if not 0 <= high - low < MAX_SEEDS - len(seeds):
            raise SpecError(
                f"`--seeds` must name 1 to {MAX_SEEDS} seeds, rising, got {part.strip()!r}. Write `1,2,3` or `1-4`."
            )
        seeds.update(dict.fromkeys(range(low, high + 1)))
    return tuple(seeds)


def parse_duration(text: str, option: str) -> float:
    """Return the seconds of a time such as `2h`, `90m`, `1h30m` or `45s`.

    Args:
        text: What was written.
        option: The option that it was written for, for the message.

    Raises:
        SpecError: It is no such time, or none at all.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = (
        sum(float(number) * unit for number, unit in zip(found.groups(), _UNITS_S, strict=True) if number)
        if found
        else 0.0
    )
    if seconds <= 0:
        raise SpecError(f"`{option}` must be a time above 0 with its units, got {text!r}. Write 2h, 90m, 1h30m or 45s.")
    return seconds


def check_which(which: str) -> str:
    """Return `which` if it is `best` or `last`.

    Raises:
        SpecError: It is neither.
    """
    if which not in ("best", "last"):
        raise SpecError(
            f"`--which` must be best or last, got {which!r}. Use best for the policy that evaluated highest."
        )
    return which


def check_state(state: str) -> RunState:
    """Return `state` if runs know it.

    Raises:
        UnknownNameError: They do not.
    """
    from rlplatform.artifacts.run_state import NEXT_STATES

    for known in NEXT_STATES:
        if known == state:
            return known
    raise unknown_name("state", state, NEXT_STATES)
