"""Tasks: one YAML file each, no Python and no tensors, and the registry folders they live in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
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
        revision: branch, tag or commit on the Hub.
        mirrors: other folders of a data root that hold the same data set.
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
        return Task(**{**_fields(self), **changes})


class TaskRegistry:
    """The tasks of some folders, read once; later folders win over earlier ones.

    Args:
        folders: searched for ``*.yaml``, also in sub-folders; files that begin with ``_`` are fragments for `include:`.

    Raises:
        ConfigError: all mistakes of all files, each with file and line.
    """

    def __init__(self, folders: Iterable[str | Path]):
        self.folders = [Path(folder) for folder in folders]
        self.tasks: dict[str, Task] = {}
        mistakes: list[str] = []
        for folder in self.folders:
            if not folder.is_dir():
                mistakes.append(f"task registry {folder}: no such folder")
                continue
            here: dict[str, Task] = {}
            for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
                if file.name.startswith("_") or file.name == "packages.yaml":
                    continue
                try:
                    task = read_task(file, root=folder)
                except ConfigError as error:
                    mistakes += error.mistakes
                    continue
                if task.name in here:
                    mistakes.append(f"{file}: the task {task.name!r} stands in {here[task.name].file} too")
                here[task.name] = task
            self.tasks.update(here)
        if mistakes:
            raise ConfigError(mistakes)

    def tags(self) -> dict[str, list[str]]:
        """Suites: tag → names of its tasks."""
        suites: dict[str, list[str]] = {}
        for task in self.tasks.values():
            for tag in task.tags:
                suites.setdefault(tag, []).append(task.name)
        return suites

    def find(self, name: str) -> list[Task]:
        """The task of this name, or the tasks with this tag.

        Raises:
            ConfigError: neither; suggests near names and tags.
        """
        if name in self.tasks:
            return [self.tasks[name]]
        suites = self.tags()
        if name in suites:
            return [self.tasks[task] for task in suites[name]]
        known = [*self.tasks, *suites]
        raise ConfigError(f"unknown task or tag {name!r}{suggestion(name, known)} (nlp-mtl tasks list shows all)")


def builtin_folder() -> Path:
    """The registry that comes with the package: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "task_registry"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "task_registry"


def registry_folders(more: Sequence[str | Path] = ()) -> tuple[Path, ...]:
    """The built-in registry, then those of ``NLP_MTL_REGISTRY`` (separated like PATH), then `more`."""
    named = [part for part in os.environ.get("NLP_MTL_REGISTRY", "").split(os.pathsep) if part]
    return tuple(Path(folder) for folder in (builtin_folder(), *named, *more))


@lru_cache(maxsize=8)
def _registry(folders: tuple[Path, ...]) -> TaskRegistry:
    return TaskRegistry(folders)


def task_registry(more: Sequence[str | Path] = ()) -> TaskRegistry:
    """The registry of :func:`registry_folders`, read once per process."""
    return _registry(registry_folders(more))


def load_tasks(
    wanted: str | Path | Task | Mapping[str, Any] | Sequence[str | Path | Task | Mapping[str, Any]],
    *,
    registry: Sequence[str | Path] = (),
) -> list[Task]:
    """Tasks by name, by tag, by YAML path, or as a mapping ``{name: …, changes}``.

    Args:
        wanted: one or several of: a task's name, a tag (all its tasks), the path of a YAML file, a :class:`Task`, or a
            mapping with `name` (as above) and fields to change, e.g. ``{"name": "sst2", "rows": {"train": 16000}}``.
        registry: more registry folders; see :func:`registry_folders`.

    Returns:
        The tasks in the order asked for, each once.

    Raises:
        ConfigError: everything that is wrong, at once.

    Example:
        >>> [task.name for task in load_tasks(["rte", "mrpc"])]
        ['rte', 'mrpc']
    """
    items = [wanted] if isinstance(wanted, (str, Path, Task, Mapping)) else list(wanted)
    found: dict[str, Task] = {}
    mistakes: list[str] = []
    for item in items:
        try:
            for task in _tasks_of(item, registry):
                if task.name in found and found[task.name] != task:
                    mistakes.append(f"the task {task.name!r} is asked for twice, in two forms; rename or drop one")
                found.setdefault(task.name, task)
        except ConfigError as error:
            mistakes += error.mistakes
    mistakes += _check_heads_shared(found)
    if not items:
        mistakes.append("no task was named; name at least one (nlp-mtl tasks list shows all)")
    if mistakes:
        raise ConfigError(mistakes)
    return list(found.values())


def _tasks_of(item: Any, registry: Sequence[str | Path]) -> list[Task]:
    if isinstance(item, Task):
        return [item]
    if isinstance(item, Mapping):
        changes = dict(item)
        name = changes.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"a task given as a mapping needs `name`, found {dict(item)!r}")
        place = f"task {name!r}"
        return [_validated({**_fields(task), **changes}, place) for task in _tasks_of(name, registry)]
    if not isinstance(item, (str, Path)):
        raise ConfigError(f"a task is a name, a tag, a YAML path, a mapping or a Task, found {item!r}")
    path = Path(item)
    if path.suffix in (".yaml", ".yml"):
        return [read_task(path)]
    return task_registry(registry).find(str(item))


def _fields(task: Task) -> dict[str, Any]:
    return {**task.model_dump(exclude_unset=True), **({"file": task.file} if task.file else {})}


def _check_heads_shared(tasks: Mapping[str, Task]) -> list[str]:
    mistakes = []
    for task in tasks.values():
        if task.head_of is None:
            continue
        owner = tasks.get(task.head_of)
        if owner is None:
            mistakes.append(
                f"task {task.name!r} uses the head of {task.head_of!r}, which is not among the tasks; add it"
            )
        elif owner.head_of is not None:
            mistakes.append(f"task {task.name!r}: `head_of` names {owner.name!r}, which itself borrows a head")
        elif owner.head != task.head or (owner.labels or task.labels) != (task.labels or owner.labels):
            mistakes.append(f"tasks {task.name!r} and {owner.name!r} share a head: `head` and `labels` must agree")
    return mistakes


def read_task(file: str | Path, *, root: str | Path | None = None) -> Task:
    """Read one task file.

    Args:
        file: the YAML file.
        root: `include:` may reach files below this folder only; by default the file's own folder.

    Raises:
        ConfigError: all mistakes of the file, each with its line.
    """
    file = Path(file)
    data, lines = _read_with_includes(file, Path(root) if root else file.parent, ())
    if "file" in data:
        raise ConfigError(f"{file}:{lines[('file',)]}: unknown key 'file'; local files stand in `dataset.data_files`")
    return _validated({**data, "file": file}, str(file), lines)


def _read_with_includes(file: Path, root: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], yamlfile.Lines]:
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
        target = (file.parent / name).resolve()
        if not target.is_relative_to(root.resolve()):
            raise ConfigError(f"{file}:{lines[('include',)]}: `include` stays inside {root}, found {name!r}")
        if target in above:
            raise ConfigError(f"{file}:{lines[('include',)]}: `include` goes round in a circle through {name!r}")
        base, base_lines = _read_with_includes(target, root, (*above, file.resolve()))
        below = _merge(below, base)
        lines = {**dict.fromkeys(base_lines, lines[("include",)]), **lines}  # of this file, whose name stands before
    return _merge(below, data), lines


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _validated(data: dict[str, Any], place: str, lines: yamlfile.Lines | None = None) -> Task:
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
