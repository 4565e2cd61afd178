"""A task: one YAML file, no Python and no tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nlp_mtl import yamlfile
from nlp_mtl.dataspec import LOCAL_FORMATS, MEMORY, SPLITS, TASKS, DatasetSpec, InMemory, PartOf, Split, Strict
from nlp_mtl.errors import ConfigError
from nlp_mtl.explain import explain
from nlp_mtl.template import Template

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["LOCAL_FORMATS", "MEMORY", "SPLITS", "TASKS", "DatasetSpec", "InMemory", "Split", "Task", "fields_of"]
__all__ += ["validated"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Task(Strict):
    """What one task is: where its data is, what is read and predicted, by which kind of head, and how it is scored.

    Attributes:
        name: letters, digits, ``_`` and ``-``; used in metric names (``eval_<task>_<metric>``) and file names.
        head: kind of head, `name` or ``{name: …, arguments}``.
        dataset: where the rows are.
        inputs: the text column, or two for a pair, or the column of token lists.
        template: how columns are joined into one text, e.g. ``"{title} costs {price:-unknown}: {text}"``; `inputs` are
            then its columns and may be left out. See :class:`nlp_mtl.template.Template`.
        target: the column with the label; none for a task that makes its own (masked LM).
        labels: label names in the order of their numbers; left out, they are taken from the data.
        metrics: the first one decides the best checkpoint; left out, the head's own.
        metric_columns: columns kept for metrics that need them, by the metric's word (``{groups: question_id}``). Rows
            of one group are never parted by a share of `splits` or a cap of `rows`.
        splits: which of the data set's splits is which: a name, ``null`` for "not used", or for validation and test
            a share (0.1) of the training rows, held out by a hash of the inputs, after removing duplicates. For test
            also ``{of: validation, share: 0.5}``: validation rows, taken from there by a hash of the inputs.
        split_seed: another number holds out other rows.
        prepare: named functions rows → rows, in order, each `name` or ``{name: …, arguments}``.
        rows: at most so many rows of a split, drawn with a fixed seed.
        rows_seed: another number draws others.
        max_length: at most so many tokens per sequence; the rest is cut and counted.
        head_of: the task whose head this task uses (same kind of head, same labels; tasks that write may have others).
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
    template: str | None = None
    target: str | None = None
    labels: list[str] | None = None
    metrics: list[str] | None = None
    metric_columns: dict[str, str] = Field(default_factory=dict)
    splits: dict[Split, str | float | PartOf | None] = Field(default_factory=dict)
    split_seed: int = Field(default=0, ge=0, lt=2**64)
    prepare: list[str | dict[str, Any]] = Field(default_factory=list)
    rows: dict[Split, int] = Field(default_factory=dict)
    rows_seed: int = Field(default=0, ge=0, lt=2**32)
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
    _rows: dict[str, Dataset] | None = PrivateAttr(default=None)
    _inferred: tuple[str, ...] = PrivateAttr(default=())
    _inner: tuple[Task, ...] = PrivateAttr(default=())

    def __init__(self, **said: Any):
        try:
            super().__init__(**said)
        except ValidationError as error:
            place = f"task {said['name']!r}" if isinstance(said.get("name"), str) else "a task"
            raise ConfigError(explain(error, Task, said, place, {})) from error

    @model_validator(mode="before")
    @classmethod
    def _inputs_of_template(cls, data: Any) -> Any:
        """`inputs` left out are the template's columns; what is wrong with a template is said where it is read."""
        if isinstance(data, dict) and isinstance(data.get("template"), str) and "inputs" not in data:
            try:
                columns = Template(data["template"]).columns
            except ConfigError:
                columns = ["text"]
            return {**data, "inputs": columns}
        return data

    @field_validator("template")
    @classmethod
    def _fits_inputs(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        try:
            columns = Template(value).columns
        except ConfigError as error:
            raise ValueError("; ".join(error.mistakes).replace(f"template {value!r}: ", "")) from None
        inputs = info.data.get("inputs", columns)
        if set(inputs) != set(columns):
            raise ValueError(
                f"it reads the columns {', '.join(columns)}, and `inputs` names {', '.join(inputs)}; leave `inputs` out"
            )
        return value

    EXAMPLES: ClassVar[dict[str, str]] = {  # what a message shows as the way out
        "name": "my_task",
        "head": "sequence_classification",
        "dataset": "{path: csv, data_files: {train: my.csv}}",
        "inputs": "[text]",
        "template": "'{title}: {text}'",
        "target": "label",
        "labels": "['negative', 'positive']",
        "metrics": "[accuracy]",
        "splits": "{validation: 0.1}",
        "split_seed": "0",
        "prepare": "{name: drop_empty, columns: [text]}",
        "rows": "{train: 1000}",
        "rows_seed": "0",
        "max_length": "128",
        "head_of": "another_task",
        "tags": "[my_suite]",
        "language": "en",
        "verified": "no",
        "version": "1",
        "examples": "[{text: It rained., label: positive}]",
    }

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
        many = [value] if isinstance(value, (str, Mapping)) else value
        for one in many if isinstance(many, list) else ():
            if isinstance(one, Mapping) and not isinstance(one.get("name"), str):
                raise ValueError(f"write a preparation's name, or {{name: …, arguments}}, found {dict(one)}")
        return many

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: list[str] | None) -> list[str] | None:
        if value is not None:
            if not value:
                raise ValueError("at least one label, found none; leave `labels` out to take them from the data")
            doubled = sorted({label for label in value if value.count(label) > 1})
            if doubled:
                raise ValueError(f"each label once, found twice: {', '.join(doubled)}; drop one of them")
        return value

    @field_validator("metric_columns")
    @classmethod
    def _columns(cls, value: dict[str, str]) -> dict[str, str]:
        if "scores" in value:
            raise ValueError(f"`scores` are made by the head and stand in no column, found {value}")
        return value

    @field_validator("splits")
    @classmethod
    def _shares(cls, value: dict[Split, str | float | PartOf | None]) -> dict[Split, str | float | PartOf | None]:
        if any(isinstance(part, PartOf) for split, part in value.items() if split != "test"):
            raise ValueError("`{of: validation, share: …}` is for test")
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

    @property
    def inferred(self) -> list[str]:
        """What :meth:`from_data` inferred and why, in plain sentences."""
        return list(self._inferred)

    @property
    def rows_in_memory(self) -> dict[str, Dataset] | None:
        """The rows given to :meth:`from_data` as an object, by the data's own split names; None where files hold them.

        They travel with the task object only: what a run folder records of them is `dataset.memory`.
        """
        return self._rows

    def with_(self, **changes: Any) -> Task:
        """A copy with some fields changed, checked like a new one; it keeps rows given in memory."""
        made = Task(**{**fields_of(self), **changes}).knowing(self._rows, self._inferred)
        return made.reading_texts_of(() if "dataset" in changes else self._inner)

    @property
    def inner(self) -> tuple[Task, ...]:
        """The tasks whose texts it reads (``dataset: {path: tasks}``), where they were found already."""
        return self._inner

    def reading_texts_of(self, inner: Sequence[Task]) -> Task:
        """Itself, with the tasks found that its `dataset.tasks` name; see :func:`nlp_mtl.tasks.inner_tasks`."""
        self._inner = tuple(inner)
        return self

    def knowing(self, rows: dict[str, Dataset] | None, inferred: Sequence[str]) -> Task:
        """Itself, with rows in memory and what was inferred from them, which are no part of what a task file says."""
        self._rows, self._inferred = rows, tuple(inferred)
        return self

    @classmethod
    def from_data(
        cls,
        name: str,
        data: Any,
        *,
        text: str | Sequence[str] | None = None,
        label: str | None = None,
        template: str | None = None,
        head: str | Mapping[str, Any] | None = None,
        labels: Sequence[str] | Mapping[Any, str] | None = None,
        **more: Any,
    ) -> Task:
        """A task for your own data: kind of head, labels, splits and metrics are inferred; :attr:`inferred` says why.

        Args:
            name: of the task.
            data: a `datasets.Dataset` or `DatasetDict`, a `pandas.DataFrame`, rows as a list of mappings, or any of
                these by split; or a path, several, or paths by split: CSV or TSV, JSONL, parquet, CoNLL files, a folder
                of such files, or a folder with one sub-folder of text files per label. Rows given as an object stay in
                memory and travel with the task; of them, a run folder records columns, number and fingerprint only
                (tokenized rows are cached as those of any task).
            text: the text column, two for a pair, or the column of words; left out where only one can be meant.
            label: the column to predict; left out where only one can be meant.
            template: columns joined into one text, instead of `text`; see :class:`nlp_mtl.template.Template`.
            head: the kind of head, where the one inferred is not wanted.
            labels: label names in the order wanted; or what the column holds → its name, ``{0: "ham", 1: "spam"}``.
            more: for files `options` of their reader (``{"encoding": "latin-1"}``) and `columns`, their names where the
                first line does not say them; and any other field of a task: `metrics`, `splits`, `split_seed`,
                `prepare`, `tags`, `max_length`, `language`, …

        Raises:
            ConfigError: everything that is wrong or can't be told, with the candidates and the argument to give.
            DataError: files or rows that can't be read.

        Example:
            >>> rows = [{"review": f"film {i} was {'dull' if i % 3 else 'a joy'}", "verdict": "no" if i % 3 else "yes"}
            ...         for i in range(60)]
            >>> task = Task.from_data("films", rows)
            >>> task.head, task.inputs, task.target, task.labels, task.splits
            ('sequence_classification', ['review'], 'verdict', ['no', 'yes'], {'validation': 0.15, 'test': 0.15})
            >>> print(task.inferred[0])
            text: 'review' is the only column that looks like text (4 words a row, 60 different in 60 rows)
        """
        from nlp_mtl.owndata import task_from_data

        return task_from_data(name, data, text=text, label=label, template=template, head=head, labels=labels, **more)


def fields_of(task: Task) -> dict[str, Any]:
    """What a task says, without defaults."""
    return {**task.model_dump(exclude_unset=True), **({"file": task.file} if task.file else {})}


def validated(data: dict[str, Any], place: str, lines: yamlfile.Lines | None = None) -> Task:
    """A task of what a file or a run file says; raises ConfigError with all mistakes."""
    if wrong := [key for key in data if not isinstance(key, str)]:
        said = ", ".join(map(repr, wrong))
        raise ConfigError(f"{place}: keys are text, found {said}; put such a key into quotes, or leave it out")
    try:
        return Task(**data)
    except ConfigError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise ConfigError(explain(error.__cause__, Task, data, place, lines or {})) from None
