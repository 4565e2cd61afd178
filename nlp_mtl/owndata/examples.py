"""Example rows for the task file of own data: made up, or, if that is wished, taken from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlp_mtl.labelnames import name_of
from nlp_mtl.owndata.looks import class_names, is_blank
from nlp_mtl.taskfile import Task

if TYPE_CHECKING:
    from datasets import Dataset

_TEXTS = ("This row is made up.", "And so is this one, for a check.")


def made_up(task: Task, rows: Dataset) -> list[dict[str, Any]]:
    """Two rows in the shape of the data, with nothing of it but the labels' names.

    Args:
        task: the task.
        rows: its training rows, prepared.
    """
    made = []
    for number, text in enumerate(_TEXTS):
        row: dict[str, Any] = {column: _value(rows, column, text, number) for column in task.inputs}
        if task.target is not None:
            row[task.target] = _label(task, row, number)
        made.append(row)
    return made


def taken(task: Task, rows: Dataset, count: int) -> list[dict[str, Any]]:
    """Rows of the data: the first of each label, then the first of all; labels are written by name."""
    columns = [*task.inputs, *([task.target] if task.target is not None else [])]
    first: dict[str, int] = {}
    if task.target is not None:
        for number, value in enumerate(rows[task.target][:]):
            if not is_blank(value):
                first.setdefault(str(value), number)
    chosen = sorted([*dict.fromkeys([*first.values(), *range(len(rows))])][:count])
    return [
        {name: _named(task, rows, value) if name == task.target else value for name, value in row.items()}
        for row in rows.select_columns(columns).select(chosen).to_list()
    ]


def _value(rows: Dataset, column: str, text: str, number: int) -> Any:
    first = next((value for value in rows[column] if value is not None), text)
    if isinstance(first, (list, tuple)):
        return text.split()
    return number if isinstance(first, (int, float)) and not isinstance(first, bool) else text


def _label(task: Task, row: Mapping[str, Any], number: int) -> Any:
    names = task.labels or []
    if task.head_name == "seq2seq" and not names:
        return _TEXTS[number - 1]
    if task.head_name == "regression" or not names:
        return float(number)
    if task.head_name == "token_classification":
        words = row[task.inputs[0]]
        return [names[place % len(names)] for place in range(len(words))]
    return [names[number % len(names)]] if task.head_name == "multi_label" else names[number % len(names)]


def _named(task: Task, rows: Dataset, value: Any) -> Any:
    """A label as the task file writes it: by name, where there are names."""
    if isinstance(value, (list, tuple)):
        return [_named(task, rows, item) for item in value]
    names: Sequence[str] = task.labels or ()
    if not names or isinstance(value, str) or value is None:
        return value
    said = str(name_of(value))
    if class_names(rows.features[str(task.target)]) is None and said in names:
        return said
    return names[int(value)] if 0 <= int(value) < len(names) else value
