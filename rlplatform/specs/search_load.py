"""Searches from YAML and the command line: the base run from its own file, every problem with the line it stands on.

Later wins: the run's file, the search's `set`, ``RLPLATFORM_SET__…`` variables (which speak of the run), ``--set``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from rlplatform.errors import SpecError
from rlplatform.specs.load import Layers, parse_overrides, put, read_mapping, read_run, validate, variables
from rlplatform.specs.problems import shown
from rlplatform.specs.run import RunSpec
from rlplatform.specs.search import SearchSpec
from rlplatform.specs.search_checks import check_search
from rlplatform.specs.yaml_text import Path, write_yaml

_STARTS = "A search starts with `run:` and `space:`."


def load_search_spec(
    path: str | FilePath, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> SearchSpec:
    """Read a search and check everything that can be refused before a trial starts.

    Args:
        path: A YAML file. Its `run` is the path of a run's file, from the search's folder, or a mapping; its `set`
            changes fields of that run, by dotted path.
        overrides: ``field.field=value`` of the search, such as ``budget.trials=8`` or ``run.env.n_envs=4``; later wins.
        environ: Environment variables. None: this process's.

    Raises:
        SpecError: If anything is wrong; the message holds every problem with file and line, rule, value and remedy.
    """
    layers = read_mapping(FilePath(path), _STARTS)
    parsed = parse_overrides(overrides)
    replaced = [(value, origin) for parts, value, origin in parsed if parts == ("run",)]
    run = _base(layers, FilePath(path).parent, replaced)
    for parts, value, origin in variables(environ):
        put(run, parts, value, origin)
    for parts, value, origin in parsed:
        if parts[0] == "run" and len(parts) > 1:
            put(run, parts[1:], value, origin)
        elif parts != ("run",):
            put(layers, _within_space(parts, layers), value, origin)
    return _search(layers, run)


def is_search(path: str | FilePath) -> bool:
    """Return whether a file holds a search, which has a `space`.

    Raises:
        SpecError: It cannot be read, or is no mapping.
    """
    starts = f"A run starts with `algorithm:`, `env:` and `budget:`. {_STARTS}"
    return "space" in read_mapping(FilePath(path), starts).data


def dump_search_spec(spec: SearchSpec) -> str:
    """Return the search as YAML, its run and every default written out; reading it gives an equal search."""
    return write_yaml(spec.model_dump(mode="json"))


def _base(layers: Layers, folder: FilePath, replaced: Sequence[tuple[Any, str]]) -> Layers:
    """Take `run` and `set` out of a search's file and return the run that they ask for.

    Args:
        layers: What the file says.
        folder: Where the file stands.
        replaced: Values and origins of overrides of `run`; the last one counts, and speaks of the current folder.
    """
    if replaced:
        (value, origin), folder = replaced[-1], FilePath()
    elif "run" in layers.data:
        value, origin = layers.data["run"], layers.origins["run",]
    else:
        raise SpecError(f"{layers.source}: `run` is required and not there. {_STARTS}")
    run = _run(layers, value, origin, folder)
    changes = layers.data.pop("set", None) or {}
    if not isinstance(changes, dict):
        where = layers.origins["set",]
        raise SpecError(f"{where}: `set` must be a mapping, got {shown(changes)}. Write for example env.n_envs: 8.")
    for name, change in changes.items():
        put(run, name.split("."), change, layers.origins["set", name])
    return run


def _run(layers: Layers, value: Any, origin: str, folder: FilePath) -> Layers:
    """Return the run that a value of `run` means: a file's, or what stands there."""
    if isinstance(value, str):
        try:
            return read_run(folder / value)
        except SpecError as err:
            raise SpecError(f"{origin}: `run`: {err}") from err
    if not isinstance(value, dict):
        raise SpecError(f"{origin}: `run` must be a run's file or a mapping, got {shown(value)}. {_STARTS}")
    inner = {part[1:]: where for part, where in layers.origins.items() if part[0] == "run" and len(part) > 1}
    run = Layers(layers.source, value, inner)
    if isinstance(value.get("algorithm"), str):
        put(run, ("algorithm",), value["algorithm"], origin)
    return run


def _within_space(parts: tuple[str, ...], layers: Layers) -> tuple[str, ...]:
    """Return the path of an override, where the name of a dimension is one key although it holds dots."""
    if parts[0] != "space" or len(parts) == 1:
        return parts
    rest = ".".join(parts[1:])
    space = layers.data.get("space")
    known = [name for name in space if f"{rest}.".startswith(f"{name}.")] if isinstance(space, dict) else []
    name = max(known, key=len, default=rest)
    return ("space", name, *(part for part in rest[len(name) + 1 :].split(".") if part))


def _search(layers: Layers, run: Layers) -> SearchSpec:
    layers.data["run"] = validate(RunSpec, run)
    spec = validate(SearchSpec, layers)
    of_run: dict[Path, str] = {("run", *part): where for part, where in run.origins.items()}
    check_search(spec, origins={**layers.origins, **of_run}, source=layers.source)
    return spec
