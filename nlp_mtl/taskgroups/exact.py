"""The best groups: all of them looked at, or all but those that can't be the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nlp_mtl.taskgroups.worth import Served, Worth


def partitions(tasks: Sequence[int], most: int) -> Iterator[list[Served]]:
    """All ways to part tasks into at most so many sets.

    Example:
        >>> [[sorted(block) for block in blocks] for blocks in partitions([0, 1, 2], 2)]
        [[[0, 1, 2]], [[0, 1], [2]], [[0, 2], [1]], [[0], [1, 2]]]
    """
    if not tasks:
        yield []
        return
    for blocks in partitions(tasks[:-1], most):
        for place in range(len(blocks)):
            yield [block | {tasks[-1]} if number == place else block for number, block in enumerate(blocks)]
        if len(blocks) < most:
            yield [*blocks, frozenset({tasks[-1]})]


def exhaustive(worth: Worth, tasks: Sequence[int], encoders: int) -> list[Served]:
    """The best sets of tasks, each served by a group of its own; all are looked at.

    Every choice of groups in which each task is served by the one where it is worth most parts the tasks by who serves
    them, so nothing is missed.

    Args:
        worth: of groups.
        tasks: their numbers.
        encoders: at most so many groups.

    Cost: the number of partitions: 877 for 7 tasks, 4 213 597 for 12.
    """
    return max(partitions(tasks, encoders), key=lambda blocks: (round(worth.total(blocks), 12), -len(blocks)))


def branch_and_bound(worth: Worth, tasks: Sequence[int], encoders: int, start: list[Served]) -> list[Served]:
    """The same as :func:`exhaustive`, without looking at what can't become better than the best so far.

    Tasks are placed one after the other. The bound: each task is worth at most what its best companions give it, of
    those that may still join.

    Args:
        worth, tasks, encoders: as there.
        start: the best that is known.

    Relations: Standley et al. (2020, arXiv 1905.07553) search so; their bound looks at groups, this one at tasks.
    """
    everybody = frozenset(tasks)
    outside = [task for task in range(worth.count) if worth.helpers and task not in everybody]

    def hope(task: int) -> float:
        return worth.at_most(task, frozenset({task}), [*(everybody - {task}), *outside])

    order = sorted(tasks, key=lambda task: -hope(task))
    left = [0.0]
    for task in reversed(order):
        left.append(left[-1] + hope(task))
    left.reverse()  # left[n]: the most that tasks from the n-th on can be worth
    best, best_value = list(start), worth.total(start)
    known: dict[tuple[Served, int], float] = {}

    def bound(block: Served, placed: int) -> float:
        """The most that a block's tasks can be worth, whoever may still join it."""
        key = (block, 0 if worth.helpers else placed)
        if key not in known:
            free = [*(everybody - block), *outside] if worth.helpers else order[placed:]
            known[key] = sum(worth.at_most(task, block, [one for one in free if one != task]) for task in block)
        return known[key]

    def place(number: int, blocks: list[Served]) -> None:
        nonlocal best, best_value
        if number == len(order):
            value = worth.total(blocks)
            if value > best_value + 1e-12:
                best, best_value = list(blocks), value
            return
        task, tried = order[number], []
        for where in range(len(blocks) + (len(blocks) < encoders)):
            grown = blocks[where] | {task} if where < len(blocks) else frozenset({task})
            after = [*blocks[:where], grown, *blocks[where + 1 :]]
            hoped = sum(bound(block, number + 1) for block in after) + left[number + 1]
            if hoped > best_value + 1e-12:
                tried.append((hoped, where, after))
        for hoped, _, after in sorted(tried, key=lambda one: (-one[0], one[1])):
            if hoped > best_value + 1e-12:
                place(number + 1, after)

    place(0, [])
    return best
