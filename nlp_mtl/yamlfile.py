"""YAML read safely, with the line of every key, and with the types people expect.

Differences from `yaml.safe_load`: only ``true``/``false`` are booleans (a label list ``[yes, no]`` stays text),
``5e-5`` is a number, a key written twice is an error, and the line of each value is kept for messages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from nlp_mtl.errors import ConfigError

Lines = dict[tuple[str | int, ...], int]

_DEEPEST = 100

_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc,valid-type]
    """Safe loader with the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    value = str(loader.construct_scalar(node))
    return int(value, 0) if value[:2] in ("0o", "0x") else int(value)  # 08 is eight, not a broken octal number


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def load(path: str | Path) -> tuple[Any, Lines]:
    """Read one YAML file.

    Returns:
        The data, and the line (from 1) of every value by its path of keys, e.g. ``("tasks", 0) → 3``.

    Raises:
        ConfigError: no such file, not UTF-8, not YAML, or a key written twice; names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; a YAML file is needed") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    return loads(text, str(path))


def loads(text: str, name: str = "<text>") -> tuple[Any, Lines]:
    r"""Read YAML from a string; `name` stands for the file in messages. See :func:`load`.

    Example:
        >>> loads("lr: 5e-5\nlabels: [yes, no]")
        ({'lr': 5e-05, 'labels': ['yes', 'no']}, {('lr',): 1, ('labels',): 2, ('labels', 0): 2, ('labels', 1): 2})
    """
    lines: Lines = {}
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _note_lines(node, (), lines, loader, name)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error}") from None
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.reason}") from None
    finally:
        loader.dispose()


def _note_lines(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, loader: Any, name: str) -> None:
    if len(path) > _DEEPEST:
        line = node.start_mark.line + 1
        raise ConfigError(f"{name}:{line}: nested more than {_DEEPEST} deep; does an alias stand inside itself?")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"{name}:{line}: the key {key!r} stands twice, first at line {seen[key]}")
            seen[key] = line
            lines[(*path, key)] = line
            _note_lines(value_node, (*path, key), lines, loader, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _note_lines(item, (*path, index), lines, loader, name)


def line_of(lines: Lines, path: tuple[str | int, ...]) -> int | None:
    """The line of `path`, or of the nearest key above it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes what :func:`loads` would read as something else than text."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dumps(data: Any, *, flow: bool = False) -> str:
    r"""YAML that :func:`loads` reads back to the same data.

    Args:
        data: plain values, lists and mappings.
        flow: write lists and mappings of plain values on one line, as people do; but a key of `data` begins a line.

    Example:
        >>> dumps({"rate": 1e-05, "label": "5e-5"})
        "rate: 1.0e-05\nlabel: '5e-5'\n"
        >>> dumps({"name": "spam", "labels": ["yes", "no"]}, flow=True)
        'name: spam\nlabels: [yes, no]\n'
    """
    if not flow:
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    said = []
    for key, value in data.items():
        style = None if isinstance(value, (list, dict)) else False
        said.append(
            yaml.dump(
                {key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=style, width=110
            )
        )
    return "".join(said)
