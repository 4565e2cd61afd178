"""Inputs in windows that fit into memory, and their rows in passes of equal size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nlp_mtl.inputs import Input


def equal_passes(numbers: Sequence[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows in as few passes as hold so many tokens, about equally many in each, the longest rows first.

    Each is filled with the longest rows that still fit, so that even passes of different windows are nearly of one
    size. For every size the matrix library makes machine code and keeps it, half a megabyte for each product: over a
    long file passes of any size came to 200 MB.

    Args:
        numbers: of the rows.
        lengths: tokens of each.
        tokens: of a pass, at most; a longer row is a pass of its own.

    Example:
        >>> list(equal_passes([0, 1, 2, 3, 4], [2, 8, 3, 4, 4], 9))
        [[1], [4, 2], [3, 0]]
    """
    order = np.argsort(lengths, kind="stable").tolist()
    left, ascending = [numbers[place] for place in order], [lengths[place] for place in order]
    while left and ascending[-1] > tokens:
        ascending.pop()
        yield [left.pop()]
    held = sum(ascending)
    more = -(-held // tokens)  # passes
    while left:
        part, place = [], len(left) - 1
        room = min(tokens, -(-held // more)) if more > 1 else tokens
        while place >= 0:
            room -= ascending[place]
            held -= ascending.pop(place)
            part.append(left.pop(place))
            place = bisect_right(ascending, room) - 1
        more -= 1
        yield part


def characters(value: Any) -> int:
    """How much text an input holds.

    Example:
        >>> characters("rain"), characters(("a", "bc")), characters({"text": "a", "words": ["b", "c"], "stars": 3})
        (4, 3, 3)
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(characters, value.values()))
    return sum(map(characters, value)) if isinstance(value, (list, tuple)) else 0


def windows(inputs: Iterable[Input], most: int, *, text: int) -> Iterator[list[Input]]:
    """Inputs in parts of at most `most`; a part ends also where it holds `text` characters. Nothing is read ahead.

    Example:
        >>> list(windows(["a", "b", "long", "c"], 3, text=5))
        [['a', 'b', 'long'], ['c']]
    """
    part: list[Input] = []
    held = 0
    for value in inputs:
        part.append(value)
        held += characters(value)
        if len(part) >= most or held >= text:
            yield part
            part, held = [], 0
    if part:
        yield part
