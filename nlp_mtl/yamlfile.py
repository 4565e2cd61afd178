"""YAML read safely, with the line of every key, and with the types people expect.

Differences from `yaml.safe_load`: only ``true``/``false`` are booleans (a label list ``[yes, no]`` stays text),
``5e-5`` is a number, a key written twice is an error, and the line of each value is kept for messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from nlp_mtl.errors import ConfigError, near, shown

Lines = dict[tuple[str | int, ...], int]

_DEEPEST = 100
_MOST = 200_000  # values of one file, counting what an alias stands for each time it stands there
_WAYS = (  # part of what PyYAML says → the way out
    ("tab", "indent with spaces"),
    ("cannot start any token", "indent with spaces; put text that begins with @, % or ` into quotes"),
    ("mapping values are not allowed", "put text that holds ': ' into quotes"),
    ("found another document", "a file holds one document: drop what follows ---"),
    ("could not determine a constructor", "leave tags such as !!python out; only plain values are read"),
    ("unhashable key", "a key is plain text"),
    ("undefined alias", "define it with & before, or put text that begins with * into quotes"),
    ("", "look at this line and the one before: brackets and quotes must be closed, columns of keys agree"),
)

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
        raise ConfigError(f"{path}: no such file, where a YAML file is needed{_beside(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; a YAML file is needed{_beside(path / '*')}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except (OSError, ValueError) as error:  # a name that no file can have, a file that may not be read
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{str(path)[:200]!r}: can't be read ({reason}); name a YAML file") from None
    return loads(text, str(path))


def _beside(path: Path) -> str:
    """YAML files in the same folder whose names are near, or all if they are few."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    others = sorted(file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml"))
    return near(path.name, others) or (f"; YAML files there: {', '.join(others[:6])}" if others else "; none is there")


def loads(text: str, name: str = "<text>") -> tuple[Any, Lines]:
    r"""Read YAML from a string; `name` stands for the file in messages. See :func:`load`.

    Example:
        >>> loads("lr: 5e-5\nlabels: [yes, no]")
        ({'lr': 5e-05, 'labels': ['yes', 'no']}, {('lr',): 1, ('labels',): 2, ('labels', 0): 2, ('labels', 1): 2})
    """
    lines: Lines = {}
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name}: not text: half a character, {error.object[error.start]!r}; leave it out") from None
    _check_depth(text, name)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _note_lines(node, (), lines, [0], name)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        said = str(error.problem or error)
        way = next(way for part, way in _WAYS if part in said)
        raise ConfigError(f"{where}: not valid YAML: {said}; {way}") from None
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        found = f"found {chr(error.character)!r}; leave it out" if isinstance(error.character, int) else "leave it out"
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.reason}, {found}") from None
    except ConfigError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # a value that its own tag can't be
        raise ConfigError(_unread(node, error, name)) from None
    finally:
        loader.dispose()


def _check_depth(text: str, name: str) -> None:
    """Refuse what is nested so deep that reading it would break the process; every level needs one of these signs."""
    if sum(map(text.count, "[{-?:")) <= _DEEPEST:
        return
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ConfigError(_too_deep(name, event.start_mark.line + 1 if event.start_mark else 1))
    except yaml.YAMLError:
        return  # told with its line when the text is read


def _too_deep(name: str, line: int) -> str:
    return f"{name}:{line}: nested more than {_DEEPEST} deep; close brackets, and let no alias stand inside itself"


def _unread(node: yaml.Node, error: Exception, name: str) -> str:
    """The first value that can't be read as what it looks like or what its tag says."""
    for scalar in _scalars(node):
        loader = _Loader("")
        try:
            loader.construct_document(scalar)
        except (ValueError, LookupError, TypeError, AttributeError) as fault:
            kind, found = scalar.tag.rsplit(":", 1)[-1], str(scalar.value)
            said = f"{shown(found, most=40)} can't be read as {kind} ({_first_line(fault)})"
            return (
                f"{name}:{scalar.start_mark.line + 1}: {said}; put text into quotes, and leave tags such as !!int out"
            )
        finally:
            loader.dispose()
    line = node.start_mark.line + 1
    return f"{name}:{line}: not valid YAML: {_first_line(error)}; write plain values, without tags such as !!set"


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for part in pair:
                yield from _scalars(part)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _scalars(part)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].split(";")[0][:80]


def _note_lines(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, seen_values: list[int], name: str) -> None:
    line = node.start_mark.line + 1
    seen_values[0] += 1
    if len(path) > _DEEPEST:
        raise ConfigError(_too_deep(name, line))
    if seen_values[0] > _MOST:
        raise ConfigError(f"{name}:{line}: more than {_MOST} values; write them out once, aliases (*) multiply them")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"{name}:{line}: the key {key!r} stands twice, first at line {seen[key]}; drop one")
            seen[key] = line
            lines[(*path, key)] = line
            _note_lines(value_node, (*path, key), lines, seen_values, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _note_lines(item, (*path, index), lines, seen_values, name)


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


def _text(dumper: Any, text: str) -> yaml.ScalarNode:
    """PyYAML folds the line break U+0085 into a space unless it is escaped."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _text)


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
