"""Local files looked at before a reader opens them, so that what is wrong is told with file and line."""

from __future__ import annotations

import codecs
import json
import os
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from nlp_mtl.errors import DataError, shown, suggestion
from nlp_mtl.fields import read_value
from nlp_mtl.reading import short
from nlp_mtl.taskfile import Task

_DEEPEST = 50  # lists and objects in one another; what reads them breaks the process somewhere above 1000
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip (or an office document)", b"PAR1": "parquet"}
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "text": {"encoding": str},
    "conll": {"encoding": str, "columns": list[str] | None, "separator": str | None},
    "folders": {"encoding": str, "pattern": str, "labels": list[str] | None},
}
_WAYS = {
    "csv": "put fields that hold the separator or a quotation mark into quotes and close them, or say how the file is "
    "written in `options: {sep: …, quoting: 3}`",
    "json": "write one object {column: value} a line, with values of one kind in each column",
    "parquet": "copy it again, or write it again with `to_parquet`",
}


def check_options(task: Task) -> dict[str, Any]:
    """`dataset.options` as the format's reader takes them; refused if it does not, or takes values of another kind.

    Raises:
        DataError: all of them, with near names.
    """
    kinds = _OPTIONS.get(task.dataset.path) or _options_of_library(task.dataset.path)
    options = dict(task.dataset.options)
    mistakes = [
        f"{task.dataset.path} has no option {key!r}{suggestion(key, kinds)}" for key in options if key not in kinds
    ]
    for key, value in options.items():
        try:
            options[key] = read_value(kinds.get(key, Any), value)
            _check_own(key, value)
        except ValueError as error:
            mistakes.append(f"`{key}` is {error}; leave it out for the usual one")
    if mistakes:
        raise DataError("\n".join(f"task {task.name!r}: `dataset.options`: {mistake}" for mistake in mistakes))
    if "parse_agent_traces" in kinds:  # else rows with columns such as "type" and "message" are taken for agents' logs
        options.setdefault("parse_agent_traces", False)
    return options


def _options_of_library(kind: str) -> dict[str, Any]:
    """The options of a reader of `datasets` by name, with their kinds."""
    from datasets import BuilderConfig
    from datasets.packaged_modules.csv.csv import CsvConfig
    from datasets.packaged_modules.json.json import JsonConfig
    from datasets.packaged_modules.parquet.parquet import ParquetConfig

    config = {"csv": CsvConfig, "json": JsonConfig, "parquet": ParquetConfig}[kind]
    ours = {"features", *BuilderConfig.__dataclass_fields__}
    kinds = {name: hint for name, hint in typing.get_type_hints(config).items() if name not in ours}
    kinds.update({"dtype": dict[str, str]} if kind == "csv" else {})  # of our own: columns of digits that are words
    return {**kinds, "encoding": str, "skiprows": Any, "header": Any}  # null is a header too


def _check_own(key: str, value: Any) -> None:
    """What the kinds of our own options do not say."""
    if key in ("columns", "names") and value is not None and (not value or len(set(value)) < len(value)):
        raise ValueError(f"a list of different names, found {value!r}")
    if key in ("separator", "sep", "delimiter") and value == "":
        raise ValueError("a sign that parts fields, found ''")
    if key == "dtype" and set(value.values()) - {"str"}:
        raise ValueError(f"a mapping column → str, for columns that are read as text, found {value!r}")
    if key == "pattern":
        try:
            next(Path(os.devnull).rglob(value), None)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(f"a pattern of file names such as '*.txt', found {value!r} ({error})") from None


def check_encoding(task: Task, file: Path, encoding: str) -> None:
    """Find the first bytes that are not text, before a reader fails without naming the line.

    Raises:
        DataError: names the file and line; or the encoding is unknown.
    """
    try:
        known = codecs.lookup(encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError):
        known = None
    if known is None or not getattr(known, "_is_text_encoding", True):
        raise DataError(
            f"task {task.name!r}: `options.encoding` is one that Python knows for text, unknown encoding {encoding!r}; "
            "e.g. utf-8, latin-1, cp1252"
        )
    line = 1
    with file.open("rb") as stream:
        for chunk in chain(stream, [b""]):
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                line -= not chunk  # what is cut off at the end stands in the line before
                raise DataError(f"task {task.name!r}: {file}:{line}: {_not_text(file, encoding, error)}") from None
            line += 1


def _not_text(file: Path, encoding: str, error: UnicodeError) -> str:
    with file.open("rb") as stream:
        begin = stream.read(4)
    for mark, kind in _PACKED.items():
        if begin.startswith(mark):
            return f"is no text but a {kind} file; unpack it, or name its format in `dataset.path`"
    found = f"byte {error.object[error.start]:#04x}" if isinstance(error, UnicodeDecodeError) else short(error)
    likely = next((name for mark, name in _MARKS.items() if begin.startswith(mark)), "latin-1")
    return f"not {encoding} ({found}); save it as UTF-8 or set `options: {{encoding: …}}`, e.g. {likely}"


def check_json(task: Task, file: Path, encoding: str, field: str | None = None) -> None:
    """Refuse a JSON file that is neither one object a line nor one list of objects, before a reader breaks on it.

    Args:
        task: the task.
        file: of known encoding.
        encoding: of the file.
        field: the key of one large object under which the rows stand, if `options` name one.

    Raises:
        DataError: names file and line, or the number of the item in a list.
    """
    for _ in json_rows(task, file, encoding, field):
        pass


def json_rows(task: Task, file: Path, encoding: str, field: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a JSON file, checked; arguments and errors as for :func:`check_json`."""
    for line, row, place in _json_rows(task, file, encoding, field):
        wrong = _no_row(line, row)
        if wrong:
            raise DataError(
                f"task {task.name!r}: {file}{place}: a row is one object {{column: value}}, {wrong}; write one a line"
            )
        yield row


def holds_lines(file: Path, encoding: str, field: str | None = None) -> bool:
    """Whether a JSON file is one object a line, and not a list, or one object over several lines or with a `field`."""
    if field is not None:
        return False
    with file.open(encoding=encoding) as stream:
        first = next((line for line in stream if line.strip("\ufeff \t\r\n")), "")
        if first.lstrip("\ufeff").startswith("["):
            return False
        if not isinstance(_parsed(first), _Fault):
            return True
        stream.seek(0)
        return isinstance(_parsed(stream.read()), _Fault)  # else one object over several lines


def _json_rows(task: Task, file: Path, encoding: str, field: str | None) -> Iterator[tuple[str, Any, str]]:
    """(text, value, place) of every row; a text that is no JSON has the fault as its value."""
    if holds_lines(file, encoding, field):
        with file.open(encoding=encoding) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip("\ufeff \t\r\n"):
                    yield line, _parsed(line), f":{number}"
        return
    value = _parsed(file.read_text(encoding=encoding))
    if isinstance(value, _Fault):
        yield "", value, f":{value.line}"
        return
    if field is not None:
        if not isinstance(value, dict) or field not in value:
            near = suggestion(field, [key for key in value if isinstance(key, str)] if isinstance(value, dict) else [])
            raise DataError(f"task {task.name!r}: {file}: `options.field` names {field!r}, which is no key there{near}")
        value = value[field]
    rows = value if isinstance(value, list) else [value]
    texts = all(isinstance(row, str) for row in rows)  # a list of texts has one column, "text"
    for number, row in enumerate(rows):
        text = json.dumps(row)
        yield text, {"text": row} if texts else row, f", item {number}" if isinstance(value, list) else ""


class _Fault:
    """Why a text is no JSON, and where."""

    def __init__(self, why: str, line: int):
        self.why, self.line = why, line


def _parsed(text: str) -> Any:
    text = text.removeprefix("\ufeff")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return _Fault(f"found {shown(text.strip(), most=60)}, which is no JSON ({error.msg})", error.lineno)
    except (RecursionError, ValueError) as error:  # nested without end, a number of thousands of digits
        return _Fault(f"found what can't be read ({short(error)})", 1)


def _no_row(text: str, row: Any) -> str | None:
    if isinstance(row, _Fault):
        return row.why
    if not isinstance(row, dict):
        return "found null" if row is None else f"found {shown(row, most=60)}"
    if text.count("[") + text.count("{") > _DEEPEST and _depth(row) > _DEEPEST:
        return f"found lists and objects more than {_DEEPEST} deep"
    if "\\ud" in text.lower() and any(_half_characters(part) for part in _texts(row)):
        return f"found half a character in {shown(row, most=60)}"
    return None


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part) for part in inside), default=0)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)


def _half_characters(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def unreadable(
    task: Task,
    files: Mapping[str, Sequence[Path]],
    error: Exception,
    read: Callable[[Mapping[str, Sequence[Path]]], Any],
) -> DataError:
    """What to say where a library can't read files: which file it is, why, and the way out.

    Args:
        task: the task.
        files: all files by split.
        error: what the library raised.
        read: reads some files alone, by split.
    """
    every = [file for group in files.values() for file in group]
    way = _WAYS.get(task.dataset.path, "write the file again")
    if task.dataset.options:
        way += f"; found `options: {task.dataset.options}`"
    for file in every:
        try:
            if len(every) > 1:
                read({"train": [file]})
                continue
        except Exception as alone:  # of many kinds: whatever the library raises for this file
            error = alone
        why = short(error.__cause__ or error)
        return DataError(f"task {task.name!r}: {file}: can't be read as {task.dataset.path}: {why}; {way}")
    why = short(error.__cause__ or error)
    which = ", ".join(map(str, every))
    return DataError(
        f"task {task.name!r}: {which}: each can be read, but not as one data set ({why}); give all files the same "
        "columns with values of the same kinds"
    )
