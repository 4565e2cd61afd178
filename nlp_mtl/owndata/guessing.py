"""Which kind of head a label column asks for, and what must be done to the rows first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from nlp_mtl.errors import ConfigError
from nlp_mtl.owndata.looks import MOST_WHOLE_CLASSES, Target

_SEPARATORS = ("|", ";", ",")

Guess = tuple[str, str, list[dict[str, Any]]]


def guess_head(target: Target, *, named: bool = False) -> Guess:
    """The kind of head, why, and what must be done to the rows first.

    Args:
        target: the label column.
        named: whether the labels are said, so that even texts that never come again may be labels.

    Raises:
        ConfigError: what the column holds fits no kind of head, or two alike.
    """
    look, column = target.look, repr(target.name)
    one_text = target.read is not None and target.read.kind == "text"
    if look.kind in ("words", "numbers"):
        if is_parallel(target):
            prepare = [split_words(target.inputs[0])] if one_text else []
            return "token_classification", f"since {column} holds one tag for each word of the text", prepare
        if target.read is not None and target.read.kind == "words":
            raise ConfigError(_not_parallel(target))
        return "multi_label", f"since {column} holds a list of labels for each row", []
    if look.kind == "number":
        return "regression", f"since {column} holds numbers with fractions", []
    if all(isinstance(value, str) for value in target.filled):
        return _guess_texts(target, one_text, named)
    distinct = len(set(map(str, target.filled)))
    if look.kind == "classes":
        return "sequence_classification", f"since {column} holds {distinct} different values", []
    if look.kind not in ("whole", "ids"):
        raise ConfigError(f"label: {column} holds {look.said()}; no kind of head predicts that, name another column")
    if distinct > MOST_WHOLE_CLASSES:
        raise ConfigError(
            f"label: {column} holds {distinct} different whole numbers, which could be classes or an amount; say "
            "`head`: "
            "sequence_classification or regression (--head)"
        )
    return "sequence_classification", f"since {column} holds {distinct} different whole numbers", []


def spelled_lists(target: Target, head: str) -> list[dict[str, Any]]:
    """What must be done to rows in which lists are spelled as text, for a head that is said."""
    texts = all(isinstance(value, str) for value in target.filled)
    if head == "token_classification":
        columns = [target.inputs[0]] if target.read is not None and target.read.kind != "words" else []
        columns += [target.name] if texts else []
        return [split_words(*columns)] if columns else []
    if head == "multi_label" and texts:
        return [{"name": "split_labels", "column": target.name, "separator": label_separator(target) or ","}]
    return []


def split_words(*columns: str) -> dict[str, Any]:
    """The preparation that makes lists of words out of texts."""
    return {"name": "split_words", "columns": list(columns)}


def is_parallel(target: Target) -> bool:
    """Whether every row has as many tags as words (texts are cut at spaces), and some row several."""
    most = 0
    for left, right in _cut(target):
        if not isinstance(left, (list, tuple)) or len(left) != len(right):
            return False
        most = max(most, len(right))
    return most > 1


def _come_again(target: Target) -> bool:
    """Whether the words of the label's texts are few and come again and again, as tags do."""
    words = [word for value in target.filled for word in value.split()]
    return target.look.kind == "tags" or 10 * len(set(words)) <= len(words)


def _cut(target: Target) -> Iterator[tuple[Any, Any]]:
    """Words and tags of every row, texts cut at spaces."""
    for pair in target.pairs():
        left, right = (value.split() if isinstance(value, str) else value for value in pair)
        yield left, right


def label_separator(target: Target) -> str | None:
    """What parts several labels in one text: the parts then come again in other rows, and are fewer than the wholes."""
    wholes = set(target.filled)
    for separator in _SEPARATORS:
        parts = Counter(part.strip() for value in target.filled for part in value.split(separator))
        several = sum(separator in value for value in target.filled)
        again = sum(count > 1 for count in parts.values())
        if several >= max(2, len(target.filled) / 50) and len(parts) < len(wholes) and 2 * again >= len(parts):
            return separator
    return None


def _guess_texts(target: Target, one_text: bool, named: bool) -> Guess:
    column = repr(target.name)
    if all(value.strip()[:1] == "[" and value.strip()[-1:] == "]" for value in target.filled):
        raise ConfigError(
            f"label: {column} holds lists written as text, e.g. {target.filled[0][:40]!r}; write JSONL or parquet, "
            "which "
            "keep lists (DataFrame.to_json(orient='records', lines=True)), or tags with spaces between them"
        )
    if one_text and _come_again(target) and is_parallel(target):
        why = f"since {column} holds as many tags, parted by spaces, as {target.inputs[0]!r} has words, in every row"
        return "token_classification", why, [split_words(target.inputs[0], target.name)]
    if target.look.kind == "tags" and one_text:
        raise ConfigError(_not_parallel(target))
    if separator := label_separator(target):
        prepare = [{"name": "split_labels", "column": target.name, "separator": separator}]
        return "multi_label", f"since {column} holds several labels parted by {separator!r}", prepare
    distinct = len(set(target.filled))
    if 2 * distinct > len(target.filled) and not named:
        raise ConfigError(
            f"label: {column} holds {distinct} different texts in {len(target.filled)} rows; labels come again and "
            "again, "
            "so these are none; name another column, or say `head` and `labels` if they are"
        )
    return "sequence_classification", f"since {column} holds {distinct} different texts that come again and again", []


def _not_parallel(target: Target) -> str:
    wrong = [
        f"{len(words)} words and {len(tags)} tags in row {row}"
        for row, (words, tags) in enumerate(_cut(target))
        if len(words) != len(tags)
    ]
    return (
        f"label: {target.name!r} does not hold one tag for each word of {target.inputs[0]!r}: {'; '.join(wrong[:3])}; "
        f"{len(wrong)} row(s) in all; correct them, or say `head: multi_label` (--head) if they are labels of the "
        "whole row"
    )
