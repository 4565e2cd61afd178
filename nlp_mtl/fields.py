"""Values for the fields of another library's dataclass, read by its annotations before the library sees them."""

from __future__ import annotations

import enum
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nlp_mtl.errors import suggestion

_SAID = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    type(None): "null",
}


def read_fields(kind: type[Any], given: Mapping[str, Any], key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Values as the fields of a dataclass take them, and what is wrong, by field.

    Numbers written as text become numbers, and so on; a field whose annotation says too little is left as it is.

    Args:
        kind: the dataclass.
        given: values by field.
        key: what the mapping is called, for messages.

    Example:
        >>> from transformers import TrainingArguments
        >>> read_fields(TrainingArguments, {"max_steps": "7", "seed": "x"}, "training")
        ({'max_steps': 7, 'seed': 'x'}, {'seed': "`training.seed` is a whole number, found 'x'"})
    """
    known = {field.name for field in fields(kind) if field.init}
    hints = _hints(kind)
    read, wrong = dict(given), {}
    for name, value in given.items():
        if name not in known:
            wrong[name] = f"`{key}`: {kind.__name__} has no field {name!r}{suggestion(name, known)}"
            continue
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            read[name] = _read(hints.get(name, Any), value)
        except ValueError as error:
            wrong[name] = f"`{key}.{name}` is {error}"
    return read, wrong


def _hints(kind: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):  # a name that only a type checker can resolve
        return {}


def _read(annotation: Any, value: Any) -> Any:
    """The value as the annotation takes it; raises ValueError with what it takes and what was found."""
    parts = _parts(annotation)
    if not all(_is_plain(part) for part in parts):
        return value
    listed = [member.value for part in parts if _is_enum(part) for member in part]
    if listed and value is not None:
        if value not in listed:
            raise ValueError(_unlisted(value, [str(item) for item in listed]))
        return value
    try:
        if isinstance(value, bool) and {int, float} & set(parts) and bool not in parts:
            raise TypeError("true and false are no numbers here")
        found = TypeAdapter(annotation, config=ConfigDict(coerce_numbers_to_str=True)).validate_python(value)
    except (ValidationError, TypeError):
        rule = " or ".join(dict.fromkeys(_said(part) for part in parts if not (listed and part is str)))
        raise ValueError(f"{rule}, found {value!r}") from None
    whole = isinstance(found, float) and isinstance(value, int)  # 3 stays 3
    return found if isinstance(found, (bool, int, float, str)) and not whole else value


def _unlisted(value: Any, listed: list[str]) -> str:
    few, near = len(listed) < 8, suggestion(str(value), listed)
    rule = f"one of {', '.join(listed)}" if few else f"one of {len(listed)} names"
    return f"{rule}, found {value!r}{near if not few or 'did you mean' in near else ''}"


def _parts(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for inner in typing.get_args(annotation) for part in _parts(inner))
    return (annotation,)


def _is_enum(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, enum.Enum)


def _is_plain(part: Any) -> bool:
    """Whether the part says all that its values may be: no class of another library, no template such as ``x_[n]``."""
    if typing.get_origin(part) is typing.Literal:
        return not any("[" in str(value) for value in typing.get_args(part))
    return _is_enum(part) or (typing.get_origin(part) or part) in _SAID


def _said(part: Any) -> str:
    if typing.get_origin(part) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(part)))
    return (
        "one of " + ", ".join(str(m.value) for m in part) if _is_enum(part) else _SAID[typing.get_origin(part) or part]
    )
