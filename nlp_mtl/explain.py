"""What is wrong with a task file or run file, as pydantic finds it, in our words: place, key, rule, found, way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from nlp_mtl import yamlfile
from nlp_mtl.errors import shown, suggestion

_RULES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "is_instance_of": "a Task",
}
_LIMITS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "at most {}"),
    "too_short": ("min_length", "a list with at least {} item"),
}
Path = tuple[str | int, ...]


def explain(
    error: ValidationError, model: type[BaseModel], data: Mapping[Any, Any], place: str, lines: yamlfile.Lines
) -> list[str]:
    """One message per mistake that pydantic found: place and line, key, rule, what was found, and a right example.

    Args:
        error: what pydantic raised.
        model: what was asked for; its `EXAMPLES` {key: YAML} are the ways out.
        data: what was given.
        place: file, or what else to call it.
        lines: the line of every key; see :func:`nlp_mtl.yamlfile.load`.

    Example:
        >>> from nlp_mtl.dataspec import DatasetSpec
        >>> data = {"path": "csv", "data_file": "a.csv"}
        >>> try:
        ...     DatasetSpec(**data)
        ... except ValidationError as error:
        ...     print(*explain(error, DatasetSpec, data, "a.yaml", {("data_file",): 4}))
        a.yaml:4: unknown key 'data_file'; did you mean 'data_files'?
    """
    rules: dict[Path, list[str]] = {}
    messages: dict[Path, str] = {}
    for item in error.errors():
        path = _path_in(data, item["loc"], missing=item["type"] == "missing")
        line = yamlfile.line_of(lines, path)
        where, key = f"{place}:{line}" if line else place, ".".join(map(str, path))
        way = _example(model, path)
        if item["type"] == "extra_forbidden":
            message = f"{where}: unknown key {key!r}{suggestion(str(path[-1]), _known_keys(model, path))}"
        elif item["type"] == "missing":
            message = f"{where}: the key {key!r} is needed, found {_keys_in(item['input'], model)}{way}"
        elif item["type"] == "invalid_key":
            message = f"{where}: keys are text, found {shown(item['input'])}; put it into quotes, or leave it out"
        elif item["type"] == "value_error":
            said = str(item["ctx"]["error"])
            message = f"{where}: `{key}`: {said}{way}" if key else f"{where}: {said}"
        else:
            rules.setdefault(path, []).append(_rule(item))
            rule = " or ".join(dict.fromkeys(rules[path]))
            messages[path] = f"{where}: `{key}` is {rule}, found {shown(item['input'])}{way}"
            continue
        messages.setdefault(path, message)
    # of what may have several types, the type that was meant goes deepest
    deepest = [path for path in messages if not any(other[: len(path)] == path != other for other in messages)]
    return [messages[path] for path in deepest]


def no_mapping(data: Any, what: str, model: type[BaseModel]) -> str:
    """What to say of a file that does not hold keys and values.

    Example:
        >>> from nlp_mtl.config import RunConfig
        >>> no_mapping(None, "a run file", RunConfig)
        'a run file is a mapping of keys, found nothing; begin with `model: bert-base-cased`'
    """
    found = "nothing" if data is None else shown(data, most=40)
    key, value = next(iter(getattr(model, "EXAMPLES", {"key": "value"}).items()))
    return f"{what} is a mapping of keys, found {found}; begin with `{key}: {value}`"


def _rule(item: Any) -> str:
    kind, said = item["type"], item.get("ctx", {})
    if kind == "literal_error":
        return "one of " + said["expected"].replace("'", "").replace(" or ", ", ")
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return words.format(said[name])
    return _RULES.get(kind) or item["msg"][0].lower() + item["msg"][1:]


def _path_in(data: Any, location: tuple[Any, ...], *, missing: bool) -> Path:
    """The keys of a mistake's place, without what pydantic puts between them to tell types apart."""
    path: list[str | int] = []
    for part in location:
        listed = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if listed or (isinstance(data, Mapping) and part in data):
            data = data[part]
            path.append(part)
    return (*path, location[-1]) if missing else tuple(path)


def _keys_in(data: Any, model: type[BaseModel]) -> str:
    hidden = {name for name, field in model.model_fields.items() if field.exclude}
    keys = [str(key) for key in data if key not in hidden][:8] if isinstance(data, Mapping) else []
    return f"only {', '.join(keys)}" if keys else "none"


def _example(model: type[BaseModel], path: Path) -> str:
    examples = getattr(model, "EXAMPLES", {})
    key = str(path[0]) if path else ""
    return f"; e.g. `{key}: {examples[key]}`" if key in examples else ""


def _known_keys(model: type[BaseModel], path: Path) -> list[str]:
    for part in path[:-1]:
        inner = model.model_fields[str(part)].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return [name for name, field in model.model_fields.items() if not field.exclude]
