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


def misfits(labels: Sequence[str], scheme: Scheme) -> str:
    """What is wrong with a list of tags in this scheme, and the way out; empty if nothing is.

    Example:
        >>> misfits(["O", "PER"], "iob2")
        "`scheme: iob2` reads O, B-TYPE and I-TYPE, found 'PER'; io has plain types, none has tags that mark no spans"
        >>> misfits(["O", "B-PER", "I-PER"], "iob2")
        ''
    """
    if scheme == "none" or scheme == "io":
        odd = [label for label in labels if scheme == "io" and label.startswith("B-")]
        return f"`scheme: io` has no B-, found {odd[0]!r}; is it iob1 or iob2?" if odd else ""
    odd = [label for label in labels if label != "O" and not re.match(r"[BI]-.", label)]
    if odd:
        way = "io has plain types, none has tags that mark no spans"
        if any(re.match(r"[SEULM]-.", label) for label in odd):
            way = "other schemes (BIOES, BILOU) are brought to it with `prepare: map_labels` or in the data"
        return f"`scheme: {scheme}` reads O, B-TYPE and I-TYPE, found {odd[0]!r}; {way}"
    alone = [label for label in labels if label.startswith("I-") and f"B-{label[2:]}" not in labels]
    if scheme == "iob2" and alone and not any(label.startswith("B-") for label in labels):
        return f"in IOB2 every span begins with B-, but the labels have none ({alone[0]!r} …); say `scheme: iob1` or io"
    return ""


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
