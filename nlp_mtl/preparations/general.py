"""Preparations for any data: columns renamed, labels mapped, rows left out, lines taken apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nlp_mtl import registry
from nlp_mtl.errors import DataError
from nlp_mtl.preparations.base import rewrite

if TYPE_CHECKING:
    from datasets import Dataset


@registry.preparations.register("drop_empty")
def drop_empty(rows: Dataset, columns: list[str]) -> Dataset:
    """Leave out rows in which one of `columns` is None or blank."""

    def is_blank(value: Any) -> bool:
        return value is None or value == [] or (isinstance(value, str) and not value.strip())

    return rows.filter(lambda row: not any(is_blank(row[column]) for column in columns))


@registry.preparations.register("rename")
def rename(rows: Dataset, columns: dict[str, str]) -> Dataset:
    """Rename columns: `{old: new}`; columns that are not there are passed over."""
    return rows.rename_columns({old: new for old, new in columns.items() if old in rows.column_names})


@registry.preparations.register("map_labels")
def map_labels(rows: Dataset, column: str, names: dict[str, str]) -> Dataset:
    """Replace the values of a label column: `{found: wanted}`; a row without a label is kept as it is.

    Raises:
        DataError: a value that `names` does not list.
    """

    def change(row: dict[str, Any]) -> dict[str, Any]:
        value = row[column]
        if value is not None and value not in names:
            raise DataError(f"{value!r} in column {column!r} is not among {sorted(names)}")
        return {**row, column: None if value is None else names[value]}

    if column not in rows.column_names:  # a test split without labels
        return rows
    return rewrite(rows.cast_column(column, _string()), change)


@registry.preparations.register("last_rows")
def last_rows(rows: Dataset, count: int) -> Dataset:
    """Keep the last `count` rows of the file."""
    if count < 1:
        raise DataError(f"`count` is at least 1, found {count}")
    return rows if len(rows) <= count else rows.select(range(len(rows) - count, len(rows)))


@registry.preparations.register("question_lines")
def question_lines(rows: Dataset, column: str = "line") -> Dataset:
    """TREC questions from lines such as ``NUM:date When …``: columns text, coarse_label, fine_label."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        fine, _, text = row[column].partition(" ")
        return {"text": text.strip(), "coarse_label": fine.partition(":")[0], "fine_label": fine}

    return rewrite(rows, change)


@registry.preparations.register("split_words")
def split_words(rows: Dataset, columns: list[str]) -> Dataset:
    """Make lists of words out of text; rows whose lists differ in length are left out.

    Columns that hold lists already are kept, and columns that are not there are passed over.
    """
    there = [column for column in columns if column in rows.column_names]

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        words = {column: row[column].split() if isinstance(row[column], str) else row[column] or [] for column in there}
        if len({len(value) for value in words.values()}) > 1:
            return None
        return {**row, **words}

    return rewrite(rows, change)


_SMS_CSV = re.compile(r'^\d+,([01]),"?(.*?)"?$')
_SMS_TSV = re.compile(r'^(ham|spam)\t(.*?)"?$')


@registry.preparations.register("sms_lines")
def sms_lines(rows: Dataset, column: str = "line") -> Dataset:
    """SMS messages from a file of two mixed line formats (``12,0,"text"`` and ``ham<TAB>text``).

    One quoted field of that file swallows 737 lines when it is read as CSV, so it is read line by line.
    """

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        line = row[column]
        if match := _SMS_TSV.match(line):
            return {"text": match[2].replace('""', '"').strip(), "label": match[1]}
        if match := _SMS_CSV.match(line):
            return {"text": match[2].replace('""', '"').strip(), "label": "spam" if match[1] == "1" else "ham"}
        return None

    return rewrite(rows, change)


@registry.preparations.register("sign_labels")
def sign_labels(rows: Dataset, column: str, label: str = "label", neutral: float = 0.0) -> Dataset:
    """A label ``negative`` / ``positive`` from the sign of a rating; ratings within `neutral` of 0 are left out."""

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        rating = float(row[column])
        if abs(rating) <= neutral:
            return None
        return {**row, label: "positive" if rating > 0 else "negative"}

    return rewrite(rows, change)


def _string() -> Any:
    from datasets import Value

    return Value("string")
