"""Good groups of many tasks: merged pair by pair, then bettered task by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from nlp_mtl.taskgroups.worth import Served, Worth


def agglomerative(worth: Worth, tasks: Sequence[int], encoders: int) -> list[Served]:
    """Begin with each task by itself, and merge the two sets that lose least, or gain most, while that must or helps.

    Args:
        worth: of groups.
        tasks: their numbers.
        encoders: at most so many groups are left.
    """
    blocks = [frozenset({task}) for task in tasks]
    while len(blocks) > 1:
        gain, one, other = max(
            ((_merged(worth, one, other), one, other) for one, other in combinations(blocks, 2)),
            key=lambda pair: pair[0],
        )
        if gain < -1e-12 and len(blocks) <= encoders:
            break
        blocks = [*(block for block in blocks if block not in (one, other)), one | other]
    return blocks


def _merged(worth: Worth, one: Served, other: Served) -> float:
    return worth.of(one | other)[0] - worth.of(one)[0] - worth.of(other)[0]


def local_search(worth: Worth, blocks: Sequence[Served], encoders: int) -> list[Served]:
    """Move a task, or swap two, while that makes the whole better.

    Args:
        worth: of groups.
        blocks: to begin with.
        encoders: at most so many groups.
    """
    found, value = list(blocks), worth.total(blocks)
    while True:
        best = max(_neighbours(found, encoders), key=worth.total, default=found)
        if worth.total(best) <= value + 1e-12:
            return found
        found, value = best, worth.total(best)


def _neighbours(blocks: Sequence[Served], encoders: int) -> Iterator[list[Served]]:
    for one, block in enumerate(blocks):
        for task in sorted(block):
            rest = [*blocks[:one], block - {task}, *blocks[one + 1 :]]
            for other in range(len(blocks)):
                if other != one:
                    yield _whole([b | {task} if n == other else b for n, b in enumerate(rest)])
            if len(blocks) < encoders and len(block) > 1:
                yield [*rest, frozenset({task})]
    for one, other in combinations(range(len(blocks)), 2):
        for task in sorted(blocks[one]):
            for guest in sorted(blocks[other]):
                swapped = list(blocks)
                swapped[one] = blocks[one] - {task} | {guest}
                swapped[other] = blocks[other] - {guest} | {task}
                yield swapped


def _whole(blocks: Sequence[Served]) -> list[Served]:
    return [block for block in blocks if block]


def clustering(worth: Worth, tasks: Sequence[int], encoders: int) -> list[Served]:
    """Good sets of many tasks; never worse than all together.

    Args:
        worth, tasks, encoders: as for :func:`nlp_mtl.taskgroups.exact.exhaustive`.

    Relations: like complete-linkage clustering, but what a merge costs is read off the whole group's worth. No proof
    that it is best; the exact ways have one.
    """
    found = local_search(worth, agglomerative(worth, tasks, encoders), encoders)
    return max([[frozenset(tasks)], found], key=worth.total)
