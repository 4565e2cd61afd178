"""Label values to class numbers, and mistakes in rows said all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_mtl.errors import DataError


def name_of(value: Any) -> Any:
    """A label value as a name: 1 and, as a CSV column with gaps gives it, 1.0 are "1"; fractions and None stay."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and value % 1):
        return value
    return str(int(value))


def names_in(values: Iterable[Any], task: str) -> list[str]:
    """The distinct label values as names, numbers by size, and −1 for "no label" left out.

    Raises:
        DataError: −1 beside other labels, which could also be a label.

    Example:
        >>> names_in([10, 2, 1, 2], "demo")
        ['1', '2', '10']
    """
    found = {name_of(v) for v in values if isinstance(v, (str, int, float)) and not (isinstance(v, float) and v % 1)}
    if "-1" in found and len(found) > 1:
        raise DataError(
            f"task {task!r}: the target holds -1 beside {', '.join(sorted(found - {'-1'})[:6])}, and no `labels` are "
            "listed; is -1 a label or its absence? List `labels`, or give names with `prepare: map_labels`"
        )
    return sorted(found - {"-1"}, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def class_numbers(
    values: Sequence[Any],
    given: Sequence[str] | None,
    labels: Sequence[str],
    where: Where,
    rows: Sequence[int] | None = None,
) -> list[int | None]:
    """Class numbers of label values: names, or numbers into the data's own names or the label list.

    Args:
        values: names or numbers; None and −1 mean "no label".
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
            f"{where}: the data has {len(given)} labels ({', '.join(map(str, given[:6]))}…), the task {len(labels)} "
            f"({', '.join(labels[:6])}…); correct `labels`"
        )
    for place, value in enumerate(values):
        row = place if rows is None else rows[place]
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value == -1):
            numbers.append(None)
        elif isinstance(value, str):
            if value not in known:
                mistakes.append((row, f"label {value!r} is not in the label list ({', '.join(labels[:8])}…)"))
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
