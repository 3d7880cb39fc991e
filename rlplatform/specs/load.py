"""Run specs from YAML, environment variables and the command line, each value with its origin.

Later wins: the spec's defaults, the file, ``RLPLATFORM_SET__<FIELD>__<FIELD>`` variables, ``--set field.field=value``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from rlplatform.errors import SpecError, did_you_mean
from rlplatform.names import SPEC_ENV_PREFIX
from rlplatform.specs.base import Spec
from rlplatform.specs.problems import dig, dotted, joined, shown, spec_error
from rlplatform.specs.run import RunSpec
from rlplatform.specs.yaml_text import Path, parse_value, read_yaml, write_yaml

DEFAULT_ORIGIN = "default"
SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class Loaded:
    """A spec and where each of its values came from."""

    spec: RunSpec
    origins: dict[str, str]
    """For each value, by dotted path: ``default``, ``<file>:<line>``, the variable's name, or ``--set …``."""


@dataclass
class Layers:
    """What was asked for so far, and where each part of it stands."""

    source: str
    """What to name where no part is to blame."""
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    """Where each part of `data` was written."""


def load_run_spec(
    path: str | FilePath | None, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Loaded:
    """Read a run's spec and check it.

    Args:
        path: A YAML file. None: only the environment and the overrides speak.
        overrides: ``field.field=value``, each value in YAML; list items by index. Later ones win.
        environ: Environment variables. None: this process's.

    Raises:
        SpecError: If anything is wrong; the message holds every problem with file and line, rule, value and remedy.
    """
    layers = Layers("the command line") if path is None else read_run(FilePath(path))
    for parts, value, origin in (*variables(environ), *parse_overrides(overrides)):
        put(layers, parts, value, origin)
    spec = validate(RunSpec, layers)
    return Loaded(spec, _provenance(spec, layers))


def run_spec_from_mapping(data: Mapping[str, Any], source: str) -> RunSpec:
    """Check a spec that is already data, such as JSON.

    Args:
        data: The spec.
        source: What errors call it.

    Raises:
        SpecError: If anything is wrong.
    """
    return validate(RunSpec, Layers(source, dict(data)))


def dump_spec(spec: RunSpec) -> str:
    """Return the spec as YAML, with every default written out; reading it gives an equal spec."""
    return write_yaml(spec.model_dump(mode="json"))


# --- layers -----------------------------------------------------------------------------------------------------------


def read_run(path: FilePath) -> Layers:
    """Read a run's file, not checked yet.

    Raises:
        SpecError: It cannot be read, or is no mapping.
    """
    layers = read_mapping(path, "It starts with `algorithm:`, `env:` and `budget:`.")
    if isinstance(layers.data.get("algorithm"), str):
        put(layers, ("algorithm",), layers.data["algorithm"], layers.origins["algorithm",])
    return layers


def read_mapping(path: FilePath, starts: str) -> Layers:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.
        starts: The sentence that says what such a file starts with.

    Raises:
        SpecError: It cannot be read, or is no mapping.
    """
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as err:
        siblings = [found.name for pattern in ("*.yaml", "*.yml") for found in path.parent.glob(pattern)]
        hint = did_you_mean(path.name, siblings) if siblings else "Check the path."
        raise SpecError(f"{source}: there is no such file. {hint}") from err
    except IsADirectoryError as err:
        raise SpecError(f"{source}: is a folder, not a file. Give one YAML file.") from err
    except UnicodeDecodeError as err:
        raise SpecError(f"{source}: is not text in UTF-8 (byte {err.start}). Save it as UTF-8.") from err
    except OSError as err:
        raise SpecError(f"{source}: cannot be read: {err.strerror}. Check its permissions.") from err
    document = read_yaml(text, source)
    if document.data is None:
        raise SpecError(f"{source}: is empty. `rlplatform config init` writes one to start from.")
    if not isinstance(document.data, dict):
        raise SpecError(
            f"{source}:{document.lines[()]}: a spec must be a mapping, got {shown(document.data)}. {starts}"
        )
    return Layers(source, document.data, {part: f"{source}:{line}" for part, line in document.lines.items() if part})


def variables(environ: Mapping[str, str] | None) -> list[tuple[tuple[str, ...], Any, str]]:
    """Return what ``RLPLATFORM_SET__…`` variables set in a run: path, value and origin of each.

    Args:
        environ: Environment variables. None: this process's.

    Raises:
        SpecError: A value is not YAML.
    """
    return [
        (tuple(name.removeprefix(SPEC_ENV_PREFIX).lower().split("__")), parse_value(text, name), name)
        for name, text in sorted((os.environ if environ is None else environ).items())
        if name.startswith(SPEC_ENV_PREFIX) and text
    ]


def parse_overrides(overrides: Sequence[str]) -> list[tuple[tuple[str, ...], Any, str]]:
    """Return what ``field.field=value`` texts set: path, value and origin of each.

    Raises:
        SpecError: A text has no `=`, or a value is not YAML.
    """
    parsed = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"`--set` must be field=value, got {override!r}. Use for example --set env.n_envs=8.")
        origin = f"--set {override}"
        parsed.append((tuple(name.strip().split(".")), parse_value(text, origin), origin))
    return parsed


def put(layers: Layers, parts: Sequence[str], value: Any, origin: str) -> None:
    """Put a value at a path, making the mappings on the way.

    Args:
        layers: Where to put it.
        parts: The path; items of lists by their index.
        value: The value.
        origin: Where it was written.

    Raises:
        SpecError: Something on the way has no such item.
    """
    if tuple(parts) == ("algorithm",) and isinstance(value, str):
        value = {"name": value}
    container: Any = layers.data
    path: Path = ()
    *parents, last = parts
    for part in parents:
        key = _key_in(container, part, path, origin)
        path = (*path, key)
        if isinstance(container, dict) and container.get(key) is None:
            container[key] = {}
            layers.origins[path] = origin
        container = container[key]
        if isinstance(container, list):
            layers.origins[path] = origin
    key = _key_in(container, last, path, origin)
    container[key] = value
    path = (*path, key)
    for stale in [known for known in layers.origins if known[: len(path)] == path]:
        del layers.origins[stale]
    _note(layers.origins, path, value, origin)


def _key_in(container: Any, part: str, path: Path, origin: str) -> str | int:
    """Return ``part`` as the key or index that it is in its container."""
    if isinstance(container, dict):
        return part
    if not isinstance(container, list):
        name = dotted(path)
        raise SpecError(f"{origin}: `{name}` is {shown(container)} and has no `{part}`. Set `{name}` itself.")
    if not part.isdecimal() or int(part) >= len(container):
        raise SpecError(
            f"{origin}: `{dotted(path)}` is a list of {len(container)} and has no item {part!r}. "
            f"Items count from 0; or set the whole list: --set '{dotted(path)}=[...]'."
        )
    return int(part)


def _note(origins: dict[Path, str], path: Path, value: Any, origin: str) -> None:
    origins[path] = origin
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _note(origins, (*path, key), item, origin)


# --- checks and origins -----------------------------------------------------------------------------------------------


def validate(model: type[SpecT], layers: Layers) -> SpecT:
    """Build a spec of what was asked for.

    Raises:
        SpecError: Something is wrong; the message holds every problem.
    """
    try:
        spec = model.model_validate(layers.data)
    except ValidationError as err:
        raise spec_error(err, model, layers.data, layers.origins, layers.source) from err
    dumped = spec.model_dump(mode="json")
    problems = [
        f"{layers.origins.get(path, layers.source)}: `{dotted(path)}` must be a number, got {shown(value)}."
        for path, value in _leaves(layers.data)
        # Pydantic takes true for 1; nobody who writes `seed: true` means that.
        if isinstance(value, bool) and type(_found(dumped, path)) in (int, float)
    ]
    if problems:
        raise joined(problems)
    return spec


def _found(data: Any, path: Path) -> Any:
    try:
        return dig(data, path)
    except (KeyError, IndexError, TypeError):
        return None


def _leaves(data: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Return every value that is no mapping, and empty mappings; a list is one value."""
    if isinstance(data, dict) and data:
        return [leaf for key, item in data.items() for leaf in _leaves(item, (*path, key))]
    return [(path, data)]


def _provenance(spec: RunSpec, layers: Layers) -> dict[str, str]:
    return {dotted(path): _origin(path, layers) for path, _ in _leaves(spec.model_dump(mode="json"))}


def _origin(path: Path, layers: Layers) -> str:
    if path in layers.origins:
        return layers.origins[path]
    for length in range(len(path) - 1, 0, -1):
        ancestor = path[:length]
        if ancestor in layers.origins:
            # A shorthand such as `lin_1e-3` sets all that it expands to; a mapping sets only its own keys.
            return DEFAULT_ORIGIN if isinstance(dig(layers.data, ancestor), dict) else layers.origins[ancestor]
    return DEFAULT_ORIGIN
