"""Tag schemes of spans: IOB1 and IO brought to IOB2, and spans out of IOB2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Scheme = Literal["iob2", "iob1", "io", "none"]


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """One sentence's tags in IOB2.

    Args:
        tags: in `scheme`; in ``io`` a tag is ``I-TYPE`` or ``TYPE``, and neighbours of one type are one span.
        scheme: ``iob2`` and ``none`` leave tags as they are.

    Example:
        >>> to_iob2(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"], "iob1")
        ['B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC']
        >>> to_iob2(["PER", "PER", "O"], "io")
        ['B-PER', 'I-PER', 'O']
    """
    if scheme in ("iob2", "none"):
        return list(tags)
    out, before = [], "O"
    for tag in tags:
        kind = tag[2:] if tag[:2] in ("B-", "I-") else tag
        if kind == "O":
            out.append("O")
        elif kind == before and not tag.startswith("B-"):
            out.append(f"I-{kind}")
        else:
            out.append(f"B-{kind}")
        before = kind
    return out


def iob2_labels(labels: Sequence[str], scheme: Scheme) -> list[str]:
    """The label list after :func:`to_iob2`: O first, then B- and I- of each type in the order they come.

    Example:
        >>> iob2_labels(["O", "PER", "LOC"], "io")
        ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']
    """
    if scheme in ("iob2", "none"):
        return list(labels)
    kinds = dict.fromkeys(re.sub(r"^[BI]-", "", label) for label in labels if label != "O")
    return ["O", *(f"{part}-{kind}" for kind in kinds for part in "BI")]


def spans_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Spans (type, first, after last) in IOB2 tags; an I- that continues nothing begins a span, as conlleval has it.

    Example:
        >>> spans_of(["B-PER", "I-PER", "O", "I-LOC"])
        [('PER', 0, 2), ('LOC', 3, 4)]
    """
    spans: list[tuple[str, int, int]] = []
    begin, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        part, _, this = tag.partition("-")
        if kind and (part != "I" or this != kind):
            spans.append((kind, begin, place))
            kind = ""
        if part in ("B", "I") and this and not kind:
            begin, kind = place, this
    return spans


_WORD = re.compile(r"\w+(?:[^\w\s]\w+)*|[^\w\s]")


def words_in(text: str) -> list[tuple[int, int]]:
    """Where words are in plain text: (start, end); punctuation at a word's edge is a word of its own.

    Example:
        >>> [("It's U.S. beef.")[a:b] for a, b in words_in("It's U.S. beef.")]
        ["It's", 'U.S', '.', 'beef', '.']
    """
    return [match.span() for match in _WORD.finditer(text)]
