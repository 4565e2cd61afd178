"""Values for the fields of another library's dataclass, read by its annotations before the library sees them."""

from __future__ import annotations

import builtins
import dataclasses
import enum
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nlp_mtl.errors import suggestion

_SAID: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    Mapping: "a mapping",
    Sequence: "a list",
    type(None): "null",
}

_MANY = {int: "whole numbers", float: "numbers", str: "texts"}


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
        ({'max_steps': 7, 'seed': 'x'}, {'seed': "`training.seed` is a whole number, found 'x'; left out, it is 42"})
    """
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    hints = _hints(kind)
    read, wrong = dict(given), {}
    for name, value in given.items():
        if name not in known:
            wrong[name] = f"`{key}`: {kind.__name__} has no field {name!r}{suggestion(name, known)}"
            continue
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            read[name] = read_value(hints.get(name, Any), value)
        except ValueError as error:
            wrong[name] = f"`{key}.{name}` is {_with_way_out(error, kind, name)}"
    return read, wrong


def read_arguments(make: Callable[..., Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The same for the arguments of a function or class, by its own annotations.

    Example:
        >>> def sample(rates: dict[str, float], epochs: int = 3): ...
        >>> read_arguments(sample, {"rates": {"a": "1e-3"}, "epochs": "many"})[1]
        {'epochs': "`epochs` is a whole number, found 'many'; left out, it is 3"}
    """
    made: Any = make
    hints = _hints(made.__init__ if isinstance(make, type) else make)
    read, wrong = dict(given), {}
    for name, value in given.items():
        try:
            read[name] = read_value(hints.get(name, Any), value)
        except ValueError as error:
            wrong[name] = f"`{name}` is {_with_way_out(error, make, name)}"
    return read, wrong


def _with_way_out(error: Exception, make: Callable[..., Any], name: str) -> str:
    said = str(error)
    if said.endswith("?"):  # a near name is way out enough
        return said
    return said + (left_out(make, name) or "; correct it, for it is needed")


def left_out(kind: Callable[..., Any], name: str) -> str:
    """What an argument is that is left out, as the end of a message; empty if it is needed."""
    default = inspect.signature(kind).parameters[name].default
    if default is inspect.Parameter.empty:
        return ""
    default = default.value if isinstance(default, enum.Enum) else default
    usual = default is None or "factory" in repr(default)
    return "; left out, it is the usual one" if usual else f"; left out, it is {default!r}"


class _Names(dict[str, Any]):
    """Names for annotations: what only a type checker can resolve is `Any`; what is known is looked up elsewhere."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or name in self["known names"]:
            raise KeyError(name)
        return Any


def _hints(kind: Any) -> dict[str, Any]:
    modules = [getattr(part, "__module__", "builtins") for part in getattr(kind, "__mro__", [kind])]
    places = [vars(sys.modules.get(name, builtins)) for name in modules]
    try:
        return typing.get_type_hints(kind, localns=_Names({"known names": set().union(*places)}))
    except (NameError, TypeError):  # e.g. a name that is defined inside a function
        return {}


def read_value(annotation: Any, value: Any) -> Any:
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
    if _is_enum(part):
        return "one of " + ", ".join(str(m.value) for m in part)
    inside = [_MANY[arg] for arg in typing.get_args(part) if arg in _MANY]
    return _SAID[typing.get_origin(part) or part] + (f" of {inside[-1]}" if inside else "")
