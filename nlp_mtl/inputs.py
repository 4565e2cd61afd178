"""What tasks read of inputs: a window of them as rows, each different row once, with the tasks that read it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.labels import RowsError, Where
from nlp_mtl.template import Template

Input = str | tuple[str, str] | Mapping[str, Any]


class InputReader:
    """How one head reads inputs.

    Args:
        head: the head.
        max_length: tokens per sequence, at most.

    Attributes:
        manner: heads of equal manner make the same tokens of the same values.
    """

    def __init__(self, head: Head, max_length: int):
        self.head, self.task = head, head.task.name
        self.needed = head.needed_columns()
        self.max_length = min(head.task.max_length or max_length, max_length)
        self.manner = (head.manner(), self.max_length)
        template = head.task.template
        self._optional = Template(template).optional if template is not None else frozenset()
        asked = [column for column in self.needed if column not in self._optional] or self.needed
        self._text_place = self.needed.index(asked[0]) if len(asked) == 1 else None
        # a template says which column a text would be, so all are missing
        self._text_lacks = asked if template is not None else asked[1:]

    def values(self, value: Any, number: int) -> tuple[Any, ...] | list[str]:
        """The values of the needed columns, or the names of those that an input lacks.

        Args:
            value: a text, a pair of texts, or a mapping of columns.
            number: of the input, for messages.

        Raises:
            DataError: it is none of these.
        """
        if isinstance(value, str):
            if self._text_place is None:
                return self._text_lacks
            before, after = self._text_place, len(self.needed) - self._text_place - 1
            return (*[None] * before, value, *[None] * after)
        if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(text, str) for text in value):
            inputs = self.head.task.inputs
            if len(self.needed) == 2 and self.needed == inputs:
                return tuple(value)
            others = [column for column in self.needed if column not in inputs]
            return others or [f"{len(self.needed)} input(s), not a pair"]
        if isinstance(value, Mapping):
            missing = [column for column in self.needed if column not in value and column not in self._optional]
            return missing or tuple(value.get(column) for column in self.needed)
        raise DataError(
            f"input {number}: a text, a pair of texts or a mapping of columns is read, found {str(value)[:60]!r}; give "
            "one of them"
        )


@dataclass
class Part:
    """One of the rows that an input's answer is made of: its number among all rows, and its own columns."""

    row: int
    columns: dict[str, Any]


@dataclass
class Window:
    """Some inputs as rows.

    Attributes:
        rows: the columns of each different row, as :func:`nlp_mtl.batches.collate` takes them.
        readers: for each row the tasks that read it.
        asked: task → (number of the input in the window, values of the needed columns, its rows).
        missing: task → number of the input → what it lacks.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    readers: list[list[str]] = field(default_factory=list)
    asked: dict[str, list[tuple[int, tuple[Any, ...], list[Part]]]] = field(default_factory=dict)
    missing: dict[str, dict[int, list[str]]] = field(default_factory=dict)


def read_window(
    readers: Sequence[InputReader],
    inputs: Sequence[Input],
    tokenizer: Any,
    first: int = 0,
    tasks: Sequence[Collection[str]] | None = None,
) -> Window:
    """The rows of some inputs. Values that several tasks read in the same manner are tokenized once.

    Args:
        readers: of the tasks that answer.
        inputs: the inputs.
        tokenizer: the model's.
        first: the number of the first input, for messages.
        tasks: for each input the tasks that are asked about it; default all.

    Raises:
        DataError: an input of another kind, or without text; names the input and the first task that can't read it.
    """
    window, groups = Window(), _Groups()
    asked: list[tuple[InputReader, list[tuple[int, tuple[Any, ...], _Group, int]]]] = []
    for reader in readers:
        window.asked[reader.task], missing = [], {}
        own: list[tuple[int, tuple[Any, ...], _Group, int]] = []
        for number, value in enumerate(inputs):
            if tasks is not None and reader.task not in tasks[number]:
                continue
            values = reader.values(value, first + number)
            if isinstance(values, list):
                missing[number] = values
            else:
                group = groups.of(reader, values)
                own.append((number, values, group, group.place(values)))
        window.missing[reader.task] = missing
        asked.append((reader, own))
    try:
        for group in groups:
            group.tokenize(tokenizer)
    except RowsError as error:
        for reader, own in asked:
            _check_alone(reader, own, tokenizer, first)
        raise DataError(str(error)) from None
    _place_rows(window, groups)
    for reader, own in asked:
        for number, values, group, place in own:
            parts = group.parts[place]
            if all(_takes(reader, window, part, tokenizer) for part in parts):
                window.asked[reader.task].append((number, values, parts))
            else:
                window.missing[reader.task][number] = [reader.head.lacking(tokenizer)]
    return window


def _takes(reader: InputReader, window: Window, part: Part, tokenizer: Any) -> bool:
    """Note what a head needs to know of a row, and that it reads it; False if the row asks nothing of this head."""
    notes = reader.head.ask(part.columns, tokenizer)
    if notes is None:
        return False
    if notes:
        part.columns.update(notes)
        window.rows[part.row].update(notes)
    readers = window.readers[part.row]
    if reader.task not in readers[-1:]:  # all inputs of one task come before those of the next
        readers.append(reader.task)
    return True


class _Group:
    """Different values that are tokenized in one call."""

    def __init__(self) -> None:
        self.readers: list[InputReader] = []
        self.values: list[tuple[Any, ...]] = []
        self.tokens: dict[str, list[Any]] = {}
        self.parts: list[list[Part]] = []
        self._places: dict[Hashable, int] = {}

    def place(self, values: tuple[Any, ...]) -> int:
        """The number of some values among the different ones."""
        key = _key(values)
        place = self._places.setdefault(key, len(self.values))
        if place == len(self.values):
            self.values.append(values)
        return place

    def tokenize(self, tokenizer: Any) -> None:
        """By the head that gives the most columns; the others read those they know."""
        reader = max(self.readers, key=lambda one: len(one.head.also_gives))
        self.tokens = _tokenized(reader, self.values, tokenizer)
        self.parts = [[] for _ in self.values]


class _Groups:
    """Groups by manner of reading; texts and lists of words apart, as they are tokenized in different ways."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Group] = {}

    def of(self, reader: InputReader, values: tuple[Any, ...]) -> _Group:
        """The group that values belong to, and the reader with them."""
        key = (reader.manner, _words(values))
        group = self._known.get(key)
        if group is None:
            group = self._known[key] = _Group()
        if reader not in group.readers[-1:]:
            group.readers.append(reader)
        return group

    def __iter__(self) -> Iterator[_Group]:
        return iter(self._known.values())


def _words(values: tuple[Any, ...]) -> bool:
    return any(isinstance(value, (list, tuple)) for value in values)


def _key(value: Any) -> Hashable:
    """Equal for values that are tokenized equally: 1, 1.0 and True are not."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    return (type(value), value) if isinstance(value, (int, float, type(None))) else (type(value), id(value))


def _tokenized(reader: InputReader, values: Sequence[tuple[Any, ...]], tokenizer: Any) -> dict[str, list[Any]]:
    table = dict(zip(reader.needed, map(list, zip(*values, strict=True)), strict=True))
    return reader.head.tokenize(table, tokenizer, reader.max_length, _Inputs(reader.task, "inputs"))


def _place_rows(window: Window, groups: Iterable[_Group]) -> None:
    """Number the different rows; the same tokens are encoded once, whichever tasks read them."""
    known: dict[Hashable, int] = {}
    for group in groups:
        names = list(group.tokens)
        for place, source in enumerate(group.tokens["source"]):
            columns = {name: group.tokens[name][place] for name in names}
            ids = columns["input_ids"] = np.asarray(columns["input_ids"])
            kinds = columns.get("token_type_ids")
            if kinds is not None:
                kinds = columns["token_type_ids"] = np.asarray(kinds)
            key: Hashable = (ids.tobytes(), None if kinds is None else kinds.tobytes(), tuple(columns["lengths"]))
            while key in known and _other_words(window.rows[known[key]], columns):
                key = (key, "other words")
            number = known.setdefault(key, len(window.rows))
            if number == len(window.rows):
                window.rows.append(columns)
                window.readers.append([])
            else:
                window.rows[number] = {**window.rows[number], **columns}
            group.parts[source].append(Part(number, columns))


def _other_words(known: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether two rows of the same tokens were cut into words in different ways."""
    both = "word_positions" in known and "word_positions" in row
    return both and list(known["word_positions"]) != list(row["word_positions"])


# ----------------------------------------------------------------------------------------------------------- mistakes


class _Inputs(Where):
    """The inputs of a task, for messages: they are no split."""

    def __str__(self) -> str:
        return f"predict: task {self.task!r}"


def _check_alone(
    reader: InputReader, own: Sequence[tuple[int, tuple[Any, ...], _Group, int]], tokenizer: Any, first: int
) -> None:
    """Tokenize what one task reads, to name all inputs that it can't read."""
    for words in dict.fromkeys(_words(values) for _, values, _, _ in own):
        mine = [(number, values) for number, values, _, _ in own if _words(values) == words]
        try:
            _tokenized(reader, [values for _, values in mine], tokenizer)
        except RowsError as error:
            raise DataError(_unreadable(error, [first + number for number, _ in mine])) from None


def _unreadable(error: RowsError, numbers: Sequence[int], *, most: int = 8) -> str:
    """What is wrong with inputs, by their numbers."""
    shown = [f"  input {numbers[row]}: {what}" for row, what in error.mistakes[:most]]
    more = [f"  … and {len(error.mistakes) - most} more"] if len(error.mistakes) > most else []
    ways = f"  way out: correct or leave out what is named, or ask only other tasks than {error.where.task!r}"
    count = len({row for row, _ in error.mistakes})
    return "\n".join([f"{error.where}: {count} input(s) can't be read:", *shown, *more, ways])
