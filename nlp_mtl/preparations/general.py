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
    """Rename columns: `{old: new}`; columns that are not there are passed over.

    Raises:
        DataError: two columns would have one name.
    """
    found = [columns.get(name, name) for name in rows.column_names]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise DataError(f"columns have different names, found {', '.join(map(repr, twice))} twice; rename that one too")
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


@registry.preparations.register("shuffle_labels")
def shuffle_labels(rows: Dataset, column: str, seed: int = 0) -> Dataset:
    """Deal the values of a label column anew among the rows, so that texts tell nothing of them: a control task.

    A task that is prepared so can't be learned, but by heart, and helps no other one. After Zhang, Bengio, Hardt, Recht
    and Vinyals (2017, arXiv 1611.03530).

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"text": list("abcdef"), "label": [0, 0, 0, 1, 1, 1]})
        >>> found = shuffle_labels(rows, "label")
        >>> sorted(found["label"]), found["text"][:] == rows["text"][:], found["label"][:] == rows["label"][:]
        ([0, 0, 0, 1, 1, 1], True, False)
    """
    import random

    if column not in rows.column_names:  # a test split without labels
        return rows
    values, feature = rows[column][:], rows.features[column]
    random.Random(seed).shuffle(values)
    return rows.remove_columns(column).add_column(column, values).cast_column(column, feature)


@registry.preparations.register("number_text")
def number_text(rows: Dataset, column: str, step: float) -> Dataset:
    """Numbers as texts, rounded to multiples of `step` with one decimal (3.8 for 3.76); no number stays none.

    Raises:
        DataError: a value that is no number, or a `step` that is not above 0.
    """
    if not step > 0:
        raise DataError(f"`step` is above 0, found {step}")

    def change(row: dict[str, Any]) -> dict[str, Any]:
        value = row[column]
        if value is not None and (isinstance(value, (bool, str)) or value != value):
            raise DataError(f"{value!r} in column {column!r} is not a number")
        if value is None or value == -1:  # an unlabelled test row
            return {**row, column: None}
        return {**row, column: f"{round(value / step) * step:.1f}"}

    if column not in rows.column_names:  # a test split without labels
        return rows
    return rewrite(rows, change, {column: _string()})


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


@registry.preparations.register("split_labels")
def split_labels(rows: Dataset, column: str, separator: str) -> Dataset:
    """Make lists of labels out of text (``sport|politics``): of a blank text an empty one, as no label holds.

    None stays None, as the labels are not known; lists are kept.
    """
    if column not in rows.column_names:
        return rows

    def change(row: dict[str, Any]) -> dict[str, Any]:
        value = row[column]
        parts = value.split(separator) if isinstance(value, str) else value
        return {**row, column: None if parts is None else [part.strip() for part in parts if part.strip()]}

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


@registry.preparations.register("unnest")
def unnest(rows: Dataset, column: str) -> Dataset:
    """Make the fields of a column of mappings columns of their own (`translation: {de: …, en: …}` → `de`, `en`).

    Raises:
        DataError: the column holds no mappings, or a field has the name of another column.
    """
    from datasets import concatenate_datasets

    flat = rows.select_columns([column]).flatten()
    if flat.column_names == [column]:
        raise DataError(f"column {column!r} holds {rows.features[column]}, not mappings; leave this preparation out")
    flat = flat.rename_columns({name: name.removeprefix(f"{column}.") for name in flat.column_names})
    others = [name for name in rows.column_names if name != column]
    if taken := sorted(set(others) & set(flat.column_names)):
        raise DataError(f"a field of {column!r} has the name of a column: {', '.join(taken)}; rename the column first")
    return concatenate_datasets([rows.select_columns(others), flat], axis=1) if others else flat


@registry.preparations.register("label_at_least")
def label_at_least(rows: Dataset, column: str, names: list[str], label: str = "label", at: float = 0.5) -> Dataset:
    """A label from a number: the first of two `names` below `at`, the second from there on; none where it is missing.

    Raises:
        DataError: `names` are not two.
    """
    if len(names) != 2:
        raise DataError(f"`names` are two, for numbers below `at` and from there on, found {names}")

    def change(row: dict[str, Any]) -> dict[str, Any]:
        number = row[column]
        return {**row, label: None if number is None else names[float(number) >= at]}

    return rewrite(rows, change)


@registry.preparations.register("labels_at_least")
def labels_at_least(rows: Dataset, columns: list[str], label: str = "labels", at: float = 0.5) -> Dataset:
    """Lists of labels from one column per label: the names of the `columns` whose number (or true) is `at` or more.

    A row in which one of them is missing has no label.
    """
    from datasets import Features, List, Value

    def batch(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
        lists = []
        for numbers in zip(*(found[column] for column in columns), strict=True):
            names = [name for name, x in zip(columns, numbers, strict=True) if x is not None and float(x) >= at]
            lists.append(None if None in numbers else names)
        return {label: lists}

    features = Features({**rows.features, label: List(Value("string"))})  # a batch may have empty lists only
    return rows.map(batch, batched=True, features=features, desc="preparing rows")


@registry.preparations.register("keep_rows")
def keep_rows(rows: Dataset, column: str, values: list[Any]) -> Dataset:
    """Keep the rows whose `column` is one of `values`, e.g. one language of a data set that mixes several."""
    if column not in rows.column_names:
        raise KeyError(column)
    return rows.filter(lambda found: [value in values for value in found], batched=True, input_columns=[column])
