"""Preparations: named, pure functions rows → rows, for what a task file can't say (``prepare: name``).

A preparation takes a `datasets.Dataset` and its arguments and returns a `datasets.Dataset`; it sees one split at a time
and must give the same rows for the same rows.

Example:
    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"line": ["NUM:date When was the war ?"]})
    >>> registry.preparations["question_lines"](rows)[0]
    {'text': 'When was the war ?', 'coarse_label': 'NUM', 'fine_label': 'NUM:date'}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nlp_mtl import registry
from nlp_mtl.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def _rewrite(rows: Dataset, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Dataset:
    """Every row changed by a function; rows for which it gives None are left out."""

    def batch(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names = list(columns)
        changed = [change(dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True)]
        kept = [row for row in changed if row is not None]
        keys = list(kept[0]) if kept else names
        return {key: [row[key] for row in kept] for key in keys}

    return rows.map(batch, batched=True, remove_columns=rows.column_names, desc="preparing rows")


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
    return _rewrite(rows.cast_column(column, _string()), change)


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

    return _rewrite(rows, change)


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

    return _rewrite(rows, change)


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

    return _rewrite(rows, change)


@registry.preparations.register("sign_labels")
def sign_labels(rows: Dataset, column: str, label: str = "label", neutral: float = 0.0) -> Dataset:
    """A label ``negative`` / ``positive`` from the sign of a rating; ratings within `neutral` of 0 are left out."""

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        rating = float(row[column])
        if abs(rating) <= neutral:
            return None
        return {**row, label: "positive" if rating > 0 else "negative"}

    return _rewrite(rows, change)


@registry.preparations.register("cause_or_effect")
def cause_or_effect(rows: Dataset, premise: str = "premise", question: str = "question") -> Dataset:
    """COPA: put the question into words after the premise ("What was the cause of this?")."""
    words = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if row[question] not in words:
            raise DataError(f"column {question!r} holds cause or effect, found {row[question]!r}")
        return {**row, premise: f"{row[premise]} {words[row[question]]}"}

    return _rewrite(rows, change)


def _string() -> Any:
    from datasets import Value

    return Value("string")


@registry.preparations.register("keep_rows")
def keep_rows(rows: Dataset, column: str, values: list[Any]) -> Dataset:
    """Keep the rows whose `column` is one of `values`, e.g. one language of a data set that mixes several."""
    return rows.filter(lambda found: [value in values for value in found], batched=True, input_columns=[column])


@registry.preparations.register("drop_words")
def drop_words(rows: Dataset, words: str, tags: str, tag: str) -> Dataset:
    """Leave out the words that carry `tag`, given by name; other columns stay as they are.

    In Universal Dependencies a word that is written as one and analysed as several (French "du": "de" and "le") stands
    in the rows whole, tagged ``_``, before its parts.
    """
    names = getattr(getattr(rows.features[tags], "feature", None), "names", None)
    unwanted = {tag, names.index(tag)} if names and tag in names else {tag}

    def batch(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        kept: dict[str, list[Any]] = {words: [], tags: []}
        for sentence, marks in zip(columns[words], columns[tags], strict=True):
            if marks is not None and len(sentence) == len(marks):  # rows that don't fit are told of later, by name
                places = [place for place, mark in enumerate(marks) if mark not in unwanted]
                sentence, marks = [sentence[place] for place in places], [marks[place] for place in places]
            kept[words].append(sentence)
            kept[tags].append(marks)
        return {**columns, **kept}

    return rows.map(batch, batched=True, features=rows.features, desc="preparing rows")


_SLOT = re.compile(r"\[\s*([^\[\]:]+?)\s*:\s*([^\[\]]*?)\s*\]")


@registry.preparations.register("bracketed_slots")
def bracketed_slots(rows: Dataset, column: str, words: str = "tokens", tags: str = "slots") -> Dataset:
    """Words and IOB2 tags from text with marked slots: ``wake me at [time : nine am]``.

    Words are what white space parts in the text without the marks; a word that a slot covers in part belongs to it, and
    if two slots meet in one word, to the first. Right for languages that write spaces between words. Rows with brackets
    that mark no slot are left out: what they mean is anyone's guess.
    """

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        text, spans, end = "", [], 0
        for match in _SLOT.finditer(row[column]):
            text += row[column][end : match.start()]
            spans.append((match[1], len(text), len(text) + len(match[2])))
            text, end = text + match[2], match.end()
        text += row[column][end:]
        if "[" in text or "]" in text:
            return None
        found, marked = [], []
        begun: set[int] = set()
        for word in re.finditer(r"\S+", text):
            slot = next((n for n, (_, a, b) in enumerate(spans) if a < word.end() and word.start() < b), None)
            found.append(word[0])
            marked.append("O" if slot is None else f"{'I' if slot in begun else 'B'}-{spans[slot][0]}")
            begun |= set() if slot is None else {slot}
        return {**row, words: found, tags: marked}

    return _rewrite(rows, change)
