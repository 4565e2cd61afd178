"""What a column of own data looks like: text, classes, a number, words of a sentence, several labels, …"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nlp_mtl.template import is_nothing

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["text", "tags", "classes", "whole", "number", "words", "numbers", "ids", "nothing", "other"]

MOST_WHOLE_CLASSES = 20  # whole numbers with more values than this could as well be counts, years or prices
MOST_CLASSES = 500
_CLASS_WORDS = 6  # a label is a few words, a text many
_LOOKED_AT = 20_000
_TAG = re.compile(r"[BIESLUM]-.+")


@dataclass(frozen=True)
class Look:
    """What a column looks like.

    Attributes:
        name: of the column.
        kind: ``text`` (several words a row), ``tags`` (texts of tags with spaces between), ``classes`` (few distinct
            texts, booleans, or a ClassLabel), ``whole`` or ``number`` (whole numbers, fractions), ``words`` or
            ``numbers`` (lists of texts, of whole numbers), ``ids`` (all different, one word each), ``nothing`` (all
            empty), ``other``.
        rows: looked at.
        empty: of them None, NaN or blank.
        distinct: values (of lists: items).
        size: mean words a row (of lists: items).
        names: of the numbers, from a ClassLabel.
    """

    name: str
    kind: Kind
    rows: int
    empty: int
    distinct: int
    size: float
    names: tuple[str, ...] | None = None

    @property
    def is_text(self) -> bool:
        """Whether texts or words could stand in it."""
        return self.kind == "text" or (self.kind == "words" and not self.repeats)

    @property
    def repeats(self) -> bool:
        """Whether items of its lists come again and again, as tags and labels do."""
        return self.distinct <= MOST_CLASSES and 2 * self.distinct <= self.size * (self.rows - self.empty)

    @property
    def is_label(self) -> bool:
        """Whether it could be predicted."""
        return self.kind in ("tags", "classes", "whole", "number", "numbers") or (self.kind == "words" and self.repeats)

    def said(self) -> str:
        """In words, for messages.

        Example:
            >>> Look("review", "text", 500, 0, 480, 12.2).said()
            'text, 12 words a row, 480 different in 500 rows'
        """
        filled = self.rows - self.empty
        what = {
            "text": f"text, {self.size:.0f} words a row, {self.distinct} different in {filled} rows",
            "tags": f"{self.size:.0f} tags a row, with spaces between them",
            "classes": f"{self.distinct} different values in {filled} rows",
            "whole": f"whole numbers, {self.distinct} different in {filled} rows",
            "number": f"numbers with fractions, {self.distinct} different in {filled} rows",
            "words": f"lists of {self.size:.1f} texts a row, {self.distinct} different",
            "numbers": f"lists of {self.size:.1f} whole numbers a row, {self.distinct} different",
            "ids": f"{self.distinct} values in {filled} rows, each one word or number and nearly all different",
            "nothing": "empty throughout",
            "other": "neither text, numbers nor lists of them",
        }
        return what[self.kind] + (f", {self.empty} empty" if self.empty and self.kind != "nothing" else "")


@dataclass(frozen=True)
class Target:
    """The label column, beside what is read.

    Attributes:
        name: of the column.
        inputs: the columns read.
        splits: the rows.
        look: what the column looks like.
        read: what the one column read looks like; None for a pair or a template.
        filled: all its values that are not empty.
    """

    name: str
    inputs: tuple[str, ...]
    splits: Mapping[str, Dataset]
    look: Look
    read: Look | None
    filled: list[Any]

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """What is read and the label, row by row, where one column is read; rows in which one is empty are left out."""
        for rows in self.splits.values():
            if self.name in rows.column_names and len(self.inputs) == 1:
                both = zip(rows[self.inputs[0]][:], rows[self.name][:], strict=True)
                yield from ((text, label) for text, label in both if not (is_blank(text) or is_blank(label)))


def look(rows: Dataset, name: str) -> Look:
    """What a column of rows looks like, from its first 20 000."""
    values = rows[name][:_LOOKED_AT]
    names = class_names(rows.features[name])
    filled = [value for value in values if not is_blank(value)]
    kind, distinct, size = _kind(filled, bool(names))
    return Look(name, kind, len(values), len(values) - len(filled), distinct, size, tuple(names) if names else None)


def class_names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names) if names else None


def is_blank(value: Any) -> bool:
    """Whether a cell is empty: None, NaN or a blank text (an empty list says something: no label)."""
    return is_nothing(value) or (isinstance(value, str) and not value.strip())


def _kind(filled: Sequence[Any], named: bool) -> tuple[Kind, int, float]:
    if not filled:
        return "nothing", 0, 0.0
    types = {bool if isinstance(value, bool) else type(value) for value in filled}
    if types <= {list, tuple}:
        return _kind_of_lists(filled)
    if types == {str}:
        return _kind_of_texts(filled)
    if types <= {bool, int, float}:
        distinct = len(set(filled))
        if types == {bool} or named:
            return "classes", distinct, 1.0
        if any(isinstance(value, float) and value % 1 for value in filled):
            return "number", distinct, 1.0
        return ("ids" if distinct == len(filled) > MOST_WHOLE_CLASSES else "whole"), distinct, 1.0
    return "other", 0, 0.0


def _kind_of_lists(filled: Sequence[Sequence[Any]]) -> tuple[Kind, int, float]:
    items = [item for value in filled for item in value]
    size = len(items) / len(filled)
    if items and all(isinstance(item, str) for item in items):
        return "words", len(set(items)), size
    if items and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return "numbers", len(set(items)), size
    return "other", 0, size


def _kind_of_texts(filled: Sequence[str]) -> tuple[Kind, int, float]:
    distinct = len(set(filled))
    size = sum(len(value.split()) for value in filled) / len(filled)
    if size >= 2 and _are_tags({word for value in filled for word in value.split()}):
        return "tags", distinct, size
    times = 2 if size < 3 else 5  # that each must come again on average: a text may stand there twice
    if times * distinct <= len(filled) and distinct <= MOST_CLASSES and size <= _CLASS_WORDS:
        return "classes", distinct, size
    return ("text" if size >= 2 else "ids"), distinct, size


def _are_tags(words: Collection[str]) -> bool:
    """Whether all words are O, B-TYPE and the like, or at least without small letters, as parts of speech are."""
    return len(words) <= MOST_CLASSES and all(_TAG.fullmatch(word) or word == word.upper() for word in words)
