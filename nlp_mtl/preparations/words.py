"""Preparations for words and their tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nlp_mtl import registry
from nlp_mtl.preparations.base import rewrite

if TYPE_CHECKING:
    from datasets import Dataset


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

    return rewrite(rows, change)
