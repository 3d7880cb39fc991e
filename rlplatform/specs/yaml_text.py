"""YAML with line numbers, read as YAML 1.2 reads scalars.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``on`` is true, ``010`` is 8 and ``1:30`` is 90. Here numbers are what
they look like and only ``true`` and ``false`` are booleans. A key that stands twice is an error, and so is every tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from rlplatform.errors import SpecError

Path = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indices of lists."""

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_TAG = "tag:yaml.org,2002:"
_SCALARS = (("null", _NULL, ["~", "n", "N", ""]), ("bool", _BOOL, list("tTfF")),
            ("int", _INT, list("-+0123456789")), ("float", _FLOAT, list("-+0123456789.")))  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Resolves scalars by the patterns above only."""


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or this module would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)


@dataclass(frozen=True)
class Document:
    """What a YAML text holds, and where."""

    data: Any
    lines: dict[Path, int]
    """Line, from 1, of each key or list item."""


def read_yaml(text: str, source: str) -> Document:
    """Parse one YAML document.

    Args:
        text: The document.
        source: What errors call it: a file's name.

    Raises:
        SpecError: If it is not YAML, has a key twice, or uses tags.
    """
    lines: dict[Path, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        return Document(None if node is None else _build(node, (), lines, source, ()), lines)
    except yaml.MarkedYAMLError as err:
        line = f":{err.problem_mark.line + 1}" if err.problem_mark else ""
        what = " ".join(part for part in (err.context, err.problem) if part)
        raise SpecError(f"{source}{line}: not valid YAML: {what}. Check indentation, colons, brackets there.") from err
    except yaml.YAMLError as err:
        raise SpecError(f"{source}: not valid YAML: {str(err).splitlines()[0]}. Is it a text file in UTF-8?") from err
    except RecursionError as err:
        raise SpecError(
            f"{source}: lists and mappings stand in each other too deeply. A spec has a few levels."
        ) from err


def parse_value(text: str, source: str) -> Any:
    """Parse the value of an override, such as ``3``, ``1e-3``, ``[64, 64]`` or ``{a: 1}``; JSON is YAML too.

    Raises:
        SpecError: If it is not YAML.
    """
    return read_yaml(text, source).data


def write_yaml(data: Any) -> str:
    """Return YAML that both :func:`read_yaml` and any YAML 1.1 reader turn back into ``data``."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _build(node: yaml.Node, path: Path, lines: dict[Path, int], source: str, parents: tuple[int, ...]) -> Any:
    """Turn a node into data, noting where each part stands."""
    where = f"{source}:{node.start_mark.line + 1}"
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in parents:
        raise SpecError(f"{where}: an alias must not stand inside its own anchor. Write the value out.")
    parents = (*parents, id(node))
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_build(item, (*path, i), lines, source, parents) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(key_node, source)
            if key in built:
                first, here = lines[(*path, key)], f"{source}:{key_node.start_mark.line + 1}"
                raise SpecError(f"{here}: `{key}` stands here again, first on line {first}. Keep one.")
            lines[(*path, key)] = key_node.start_mark.line + 1
            built[key] = _build(value_node, (*path, key), lines, source, parents)
        return built
    if isinstance(node, yaml.ScalarNode) and node.tag.removeprefix(_TAG) in {"str", "null", "bool", "int", "float"}:
        return _scalar(node, where)
    raise SpecError(f"{where}: the tag {node.tag!r} is not allowed. Use plain text, numbers, lists and mappings.")


def _key(node: yaml.Node, source: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        where = f"{source}:{node.start_mark.line + 1}"
        raise SpecError(f"{where}: a key must be a word, not a list or a mapping. Quote it.")
    return str(node.value)


def _scalar(node: yaml.ScalarNode, where: str) -> str | int | float | bool | None:
    kind, text = node.tag.removeprefix(_TAG), node.value
    try:
        match kind:
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int":
                return int(text, 0) if text.lstrip("+-")[:2] in {"0x", "0o"} else int(text)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case _:
                return str(text)
    except (ValueError, KeyError) as err:
        raise SpecError(f"{where}: {text!r} does not read as {kind}. Remove its tag.") from err
