"""Label values to class numbers, and mistakes in rows said all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_mtl.errors import DataError, near
from nlp_mtl.labelnames import name_of, names_in

__all__ = ["RowsError", "Where", "class_numbers", "complain", "metric_column", "name_of", "names_in"]


def class_numbers(
    values: Sequence[Any],
    given: Sequence[str] | None,
    labels: Sequence[str],
    where: Where,
    rows: Sequence[int] | None = None,
) -> list[int | None]:
    """Class numbers of label values: names, or numbers into the data's own names or the label list.

    A number that is itself a label's name is that label, wherever it stands in the list: with the labels "1" to "5",
    the value 1 is "1" and not the second one.

    Args:
        values: names or numbers; None means "no label", and so does −1 if no label is called so.
        given: the data's own names of the numbers (ClassLabel), if it has them.
        labels: the task's label names.
        where: task and split, for messages.
        rows: the row of each value, if not 0, 1, …

    Raises:
        DataError: with the rows.
    """
    numbers: list[int | None] = []
    mistakes = []
    known = {name: number for number, name in enumerate(labels)}
    by_name = given is not None and set(given) == set(labels)
    if given is not None and not by_name and len(given) != len(labels):
        raise DataError(
            f"{where}: the data has {len(given)} labels ({listed(given)}), the task {len(labels)} "
            f"({listed(labels)}); correct `labels`"
        )
    for place, value in enumerate(values):
        row = place if rows is None else rows[place]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool):  # its name, however it is written; else 0 or 1
            value = next((label for label in labels if label.lower() == name_of(value)), int(value))
        if given is None and isinstance(value, (int, float)) and name_of(value) in known:
            numbers.append(known[name_of(value)])
        elif value is None or (isinstance(value, (int, float)) and value == -1):
            numbers.append(None)
        elif isinstance(value, str):
            if value not in known:
                mistakes.append(
                    (row, f"label {value!r} is not in the label list ({listed(labels)}){near(value, labels)}")
                )
            numbers.append(known.get(value, 0))
        elif not isinstance(value, (int, float)):
            mistakes.append((row, f"label {str(value)[:40]!r} is neither a name nor a number"))
            numbers.append(0)
        elif isinstance(value, float) and not value.is_integer():
            mistakes.append((row, f"label {value} is a fraction; a classifier needs classes (head: regression?)"))
            numbers.append(0)
        elif not 0 <= int(value) < len(labels):
            mistakes.append((row, f"label {value} is outside 0 … {len(labels) - 1}"))
            numbers.append(0)
        else:
            numbers.append(known[given[int(value)]] if given is not None and by_name else int(value))
    complain(where, mistakes)
    return numbers


def listed(names: Sequence[Any], most: int = 8) -> str:
    """Names for a message, the first ones if they are many.

    Example:
        >>> listed(["a", "b"]), listed(["a", "b", "c"], most=2)
        ('a, b', 'a, b, …')
    """
    return ", ".join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])


@dataclass(frozen=True)
class Where:
    """Which rows are looked at, for messages: task, split, and the number of the first row."""

    task: str
    split: str
    first: int = 0

    def __str__(self) -> str:
        return f"task {self.task!r}, split {self.split!r}"


class RowsError(DataError):
    """Rows that can't be used; `mistakes` holds (row, what is wrong) for all of them."""

    def __init__(self, where: Where, mistakes: Sequence[tuple[int, str]], *, most: int = 8):
        self.where, self.mistakes = where, list(mistakes)
        shown = [f"  row {row}: {what}" for row, what in self.mistakes[:most]]
        more = [f"  … and {len(self.mistakes) - most} more"] if len(self.mistakes) > most else []
        ways = "  way out: correct the data, or leave such rows out with `prepare:`"
        count = len({row for row, _ in self.mistakes})
        super().__init__("\n".join([f"{where}: {count} row(s) can't be used:", *shown, *more, ways]))


def complain(where: Where, mistakes: Sequence[tuple[int, str]]) -> None:
    """Raise one error for all mistakes (row, what is wrong).

    Raises:
        RowsError: if there is any mistake.
    """
    if mistakes:
        raise RowsError(where, [(row + where.first, what) for row, what in mistakes])


def metric_column(task: Any, need: str) -> str:
    """Where tokenized rows keep what a metric calls `need`."""
    return f"metric:{task.name}:{need}"
