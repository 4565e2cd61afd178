"""A step's rows dealt by their tokens: to processes and micro-batches, and to passes that each fit into memory."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np


def deal(tokens: Sequence[int], parts: int) -> list[list[int]]:
    """Rows dealt to parts with about the same number of tokens: the longest row first, each to the part with the least.

    Args:
        tokens: [rows], tokens of each row.
        parts: how many parts.

    Returns:
        For each part the numbers of its rows, ascending. Of rows and parts that are alike the first comes first, so
        that every process deals the same.

    Relations: "longest processing time first" (Graham, 1969, 10.1137/0117039); two parts differ by one row at most,
    the longest.

    Example:
        >>> deal([5, 9, 2, 2, 4], 2)
        [[1, 2], [0, 3, 4]]
    """
    loads = [(0, 0, part) for part in range(parts)]  # tokens, rows, number
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for row in np.argsort(-np.asarray(tokens, dtype=np.int64), kind="stable").tolist():
        held, rows, part = loads[0]
        dealt[part].append(row)
        heapq.heapreplace(loads, (held + int(tokens[row]), rows + 1, part))
    return [sorted(part) for part in dealt]


def passes(tokens: Sequence[int], most: int) -> list[list[int]]:
    """Rows cut into passes of at most `most` tokens, rows of like length together, and the passes about equally large.

    Args:
        tokens: [rows], tokens of each row.
        most: of one pass; a row that has more is a pass of its own.

    Returns:
        For each pass the numbers of its rows, longest first; without any row, one empty pass.

    Example:
        >>> passes([5, 9, 2, 2, 4], 10)
        [[1], [0], [4, 2, 3]]
        >>> passes([], 10)
        [[]]
    """
    lengths = np.asarray(tokens, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    longest_first = lengths[order].tolist()
    ends = _cut(longest_first, most)
    least, enough = -(-int(lengths.sum()) // len(ends)), most
    while least < enough:  # the smallest budget that needs no more passes
        middle = (least + enough) // 2
        if len(_cut(longest_first, middle)) <= len(ends):
            enough = middle
        else:
            least = middle + 1
    ends = _cut(longest_first, enough)
    return [order[begin:end].tolist() for begin, end in zip([0, *ends], ends, strict=False)]


def _cut(tokens: Sequence[int], most: int) -> list[int]:
    """Where each pass ends if as many rows as fit are taken one after the other."""
    ends, held = [], 0
    for number, count in enumerate(tokens):
        if held and held + count > most:
            ends.append(number)
            held = 0
        held += count
    return [*ends, len(tokens)]
