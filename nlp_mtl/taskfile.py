"""A task: one YAML file, no Python and no tensors."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nlp_mtl import yamlfile
from nlp_mtl.errors import ConfigError, suggestion

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LOCAL_FORMATS = ("csv", "json", "parquet", "text", "conll")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DatasetSpec(_Strict):
    r"""Where a task's rows come from.

    Attributes:
        path: a Hub id (``nyu-mll/glue``), or a local format: csv, json, parquet, text (column ``line``), conll.
        name: the configuration (``cola``).
        revision: branch, tag or commit on the Hub; ``refs/convert/parquet`` where main holds a loading script.
        mirrors: other folders of a data root that hold the same data set, or as their default this configuration.
        data_files: for a local format, the file or files, by split or not; relative to the task file, then to the
            working folder; with `package`, relative to the package.
        package: name of a package of ``task_registry/packages.yaml`` that carries the files.
        options: what the reader takes, e.g. ``{sep: "\t", header: null}`` for csv.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    mirrors: list[str] = Field(default_factory=list)
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    package: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _files_where_needed(self) -> DatasetSpec:
        if self.path in LOCAL_FORMATS and not self.data_files:
            raise ValueError(f"`path: {self.path}` reads local files: `data_files` must name them")
        if self.package and self.path not in LOCAL_FORMATS:
            raise ValueError(f"`package` goes with a local format in `path` ({', '.join(LOCAL_FORMATS)})")
        return self


class Task(_Strict):
    """What one task is: where its data is, what is read and predicted, by which kind of head, and how it is scored.

    Attributes:
        name: letters, digits, ``_`` and ``-``; used in metric names (``eval_<task>_<metric>``) and file names.
        head: kind of head, `name` or ``{name: …, arguments}``.
        dataset: where the rows are.
        inputs: the text column, or two for a pair, or the column of token lists.
        target: the column with the label; none for a task that makes its own (masked LM).
        labels: label names in the order of their numbers; left out, they are taken from the data.
        metrics: the first one decides the best checkpoint; left out, the head's own.
        splits: which of the data set's splits is which: a name, ``null`` for "not used", or for validation and test
            a share (0.1) of the training rows, held out by a hash of the inputs, after removing duplicates.
        prepare: named functions rows → rows, in order, each `name` or ``{name: …, arguments}``.
        rows: at most so many rows of a split, drawn with a fixed seed.
        max_length: at most so many tokens per sequence; the rest is cut and counted.
        head_of: the task whose head this task uses (same kind of head, same labels).
        tags: suites this task belongs to.
        language, version, description: for people and for the cards.
        license: of the data, as the Hub names it (``cc-by-4.0``), or ``unknown``.
        citation: authors, year and title of the paper behind the data.
        verified: how it is known that the file fits the data: ``ran`` (real rows went through it), ``documentation``
            (columns, labels and splits were read there), ``no``.
        examples: a few rows, written by hand, in the shape of the data; used by ``nlp-mtl tasks check``.
        file: the YAML file this task was read from.

    Example:
        >>> task = Task(name="irony", head="sequence_classification", inputs=["text"], target="label",
        ...             dataset={"path": "cardiffnlp/tweet_eval", "name": "irony"}, labels=["non_irony", "irony"])
        >>> task.head_name, task.head_key
        ('sequence_classification', 'irony')
    """

    name: str
    head: str | dict[str, Any]
    dataset: DatasetSpec
    inputs: list[str] = Field(min_length=1)
    target: str | None = None
    labels: list[str] | None = None
    metrics: list[str] | None = None
    splits: dict[Split, str | float | None] = Field(default_factory=dict)
    prepare: list[str | dict[str, Any]] = Field(default_factory=list)
    rows: dict[Split, int] = Field(default_factory=dict)
    max_length: int | None = Field(default=None, ge=2)
    head_of: str | None = None
    tags: list[str] = Field(default_factory=list)
    language: str = "en"
    license: str = ""
    citation: str = ""
    verified: Literal["ran", "documentation", "no"] = "no"
    version: int = Field(default=1, ge=1)
    description: str = ""
    examples: list[dict[str, Any]] = Field(default_factory=list)
    file: Path | None = Field(default=None, exclude=True, repr=False)

    @field_validator("name", "head_of")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.fullmatch(value):
            raise ValueError(
                f"a task name has 1 to 64 letters, digits, '_' or '-', first a letter or digit, found {value!r}"
            )
        return value

    @field_validator("head")
    @classmethod
    def _named(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(value, dict) and not isinstance(value.get("name"), str):
            raise ValueError(f"write a kind of head, or {{name: …, arguments}}, found {value}")
        return value

    @field_validator("prepare", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, Mapping)) else value

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: list[str] | None) -> list[str] | None:
        if value is not None:
            doubled = sorted({label for label in value if value.count(label) > 1})
            if doubled:
                raise ValueError(f"each label once; found twice: {', '.join(doubled)}")
        return value

    @field_validator("splits")
    @classmethod
    def _shares(cls, value: dict[Split, str | float | None]) -> dict[Split, str | float | None]:
        shares = {split: share for split, share in value.items() if isinstance(share, (int, float))}
        if "train" in shares:
            raise ValueError("`train` is a split's name or null; shares are for validation and test")
        if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
            raise ValueError(f"shares are between 0 and 1 and leave rows for training, found {shares}")
        return value

    @field_validator("rows")
    @classmethod
    def _positive(cls, value: dict[Split, int]) -> dict[Split, int]:
        if any(count < 1 for count in value.values()):
            raise ValueError(f"`rows` are counts from 1, found {value}")
        return value

    @property
    def head_name(self) -> str:
        """The kind of head, without its arguments."""
        return self.head if isinstance(self.head, str) else str(self.head.get("name"))

    @property
    def head_key(self) -> str:
        """The task that owns the head: this one, or the one named in `head_of`."""
        return self.head_of or self.name

    def with_(self, **changes: Any) -> Task:
        """A copy with some fields changed, checked like a new one."""
        return Task(**{**fields_of(self), **changes})


def fields_of(task: Task) -> dict[str, Any]:
    """What a task says, without defaults."""
    return {**task.model_dump(exclude_unset=True), **({"file": task.file} if task.file else {})}


Said = tuple[dict[str, Any], yamlfile.Lines]
Fragments = dict[tuple[Path, Path], Said]  # (root, file) → what it says, with what it includes


@dataclass(frozen=True)
class ParsedTask:
    """What a task file and its fragments say, not yet checked: enough to know a task's name and tags.

    Attributes:
        file: the task file.
        data: the keys and values.
        lines: where they stand.
    """

    file: Path
    data: dict[str, Any]
    lines: yamlfile.Lines

    def checked(self) -> Task:
        """The task; raises ConfigError with all mistakes, each with its line."""
        if "file" in self.data:
            place = f"{self.file}:{self.lines[('file',)]}"
            raise ConfigError(f"{place}: unknown key 'file'; local files stand in `dataset.data_files`")
        return validated({**self.data, "file": self.file}, str(self.file), self.lines)


def parse_task(file: str | Path, *, root: str | Path | None = None, fragments: Fragments | None = None) -> ParsedTask:
    """Parse one task file, without checking what it says.

    Args:
        file: the YAML file.
        root: `include:` may reach files below this folder only; by default the file's own folder.
        fragments: those parsed before, for files that include the same ones; new ones are added.

    Raises:
        ConfigError: it is no YAML mapping, or includes what it must not.
    """
    file = Path(file)
    data, lines = _read_with_includes(file, Path(root) if root else file.parent, (), fragments)
    return ParsedTask(file, data, lines)


def read_task(file: str | Path, *, root: str | Path | None = None) -> Task:
    """Read and check one task file; arguments as for :func:`parse_task`. Raises ConfigError with all its mistakes."""
    return parse_task(file, root=root).checked()


def _read_with_includes(file: Path, root: Path, above: tuple[Path, ...], fragments: Fragments | None) -> Said:
    data, lines = yamlfile.load(file)
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: a task file is a mapping of keys, found {type(data).__name__}")
    included = data.pop("include", None)
    names = [included] if isinstance(included, str) else included or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        place = f"{file}:{lines[('include',)]}"
        raise ConfigError(f"{place}: `include` names one file or a list of them, found {included!r}")
    below: dict[str, Any] = {}  # what the fragments say: later ones win, and this file over all
    for name in names:
        known = fragments.get((root, file.parent / name)) if fragments is not None else None
        if known is None:
            target = (file.parent / name).resolve()
            if not target.is_relative_to(root.resolve()):
                raise ConfigError(f"{file}:{lines[('include',)]}: `include` stays inside {root}, found {name!r}")
            if target in above:
                raise ConfigError(f"{file}:{lines[('include',)]}: `include` goes round in a circle through {name!r}")
            known = _read_with_includes(target, root, (*above, file.resolve()), fragments)
            if fragments is not None:
                fragments[root, file.parent / name] = known
        base, base_lines = known
        below = _merge(below, copy.deepcopy(base))  # no two tasks hold the same list
        lines = {**dict.fromkeys(base_lines, lines[("include",)]), **lines}  # of this file, whose name stands before
    return _merge(below, data), lines


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def validated(data: dict[str, Any], place: str, lines: yamlfile.Lines | None = None) -> Task:
    """A task of what a file or a run file says; raises ConfigError with all mistakes."""
    try:
        return Task(**data)
    except ValidationError as error:
        raise ConfigError(explain(error, Task, place, lines or {})) from None
    except TypeError as error:  # a key that is not a string
        raise ConfigError(f"{place}: {error}") from None


def explain(error: ValidationError, model: type[BaseModel], place: str, lines: yamlfile.Lines) -> list[str]:
    """One message per mistake that pydantic found: place and line, key, rule, what was found, near names."""
    messages: dict[tuple[Any, ...], str] = {}
    for item in error.errors():
        path = tuple(part for part in item["loc"] if not (isinstance(part, str) and ("[" in part or part in _TYPES)))
        line = yamlfile.line_of(lines, path)
        where = f"{place}:{line}" if line else place
        key = ".".join(str(part) for part in path)
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, path)
            message = f"{where}: unknown key {key!r}{suggestion(str(path[-1]), known)}"
        elif item["type"] == "missing":
            message = f"{where}: the key {key!r} is needed"
        elif item["type"] == "value_error":
            message = f"{where}: `{key}`: {item['ctx']['error']}" if key else f"{where}: {item['ctx']['error']}"
        else:
            message = f"{where}: `{key}`: {item['msg'][0].lower()}{item['msg'][1:]}, found {item['input']!r}"
        messages.setdefault(path, message)
    return list(messages.values())


_TYPES = {"str", "int", "float", "bool", "none", "dict", "list"}


def _known_keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    if len(path) > 1 and path[0] == "dataset":
        return list(DatasetSpec.model_fields)
    return [name for name in model.model_fields if name != "file"]
