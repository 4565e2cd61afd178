"""Which rows of earlier tasks come again while a new one is learned."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlp_mtl.errors import ConfigError, near, suggestion
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task

KEYS, WAYS = ("rows", "total", "how"), ("reservoir", "quota")
BY_ROWS = "rows"  # the balancer beside replay: a few rows of an earlier task do not count like the whole new one


@dataclass(frozen=True)
class Replay:
    """A buffer of earlier tasks' training rows.

    Attributes:
        rows: so many of each earlier task; or
        total: so many of all together.
        how: with `total`: ``reservoir``, each row of all tasks met so far is in the buffer with the same probability,
            or ``quota``, the same number of each task.

    Rows that come again count like the new task's, each as much as another (`balancer: rows`), unless a balancer is
    named: if every task counted the same, a handful of rows would outweigh what is to be learned.

    Relations: reservoir sampling is Vitter (1985, doi 10.1145/3147.3165); for replay, Chaudhry et al. (2019, arXiv
    1902.10486).

    Example:
        >>> Replay.of(50).counts([1000, 2000], seed=0), Replay.of({"total": 90, "how": "quota"}).counts([500] * 4, 0)
        ([50, 50], [23, 23, 22, 22])
        >>> sum(Replay.of({"total": 90}).counts([1000, 2000], seed=0))
        90
    """

    rows: int = 0
    total: int = 0
    how: str = "reservoir"

    @classmethod
    def of(cls, given: Any) -> Replay:
        """Read ``50``, ``{rows: 50}`` or ``{total: 200, how: reservoir}``.

        Raises:
            ConfigError: every mistake in it.
        """
        said = given if isinstance(given, Mapping) else {"rows": given}
        mistakes = [f"`replay` takes no {key!r}{suggestion(str(key), KEYS)}" for key in said if key not in KEYS]
        for key in ("rows", "total"):
            number = said.get(key, 0)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                what = "a number of rows of each earlier task" if key == "rows" else "a number of rows of all together"
                name = "`replay`" if said is not given else f"`replay.{key}`"
                mistakes.append(f"{name} is {what}, found {number!r}; leave it out for none")
        how = said.get("how", WAYS[0])
        if how not in WAYS:
            mistakes.append(f"`replay.how` is one of {', '.join(WAYS)}, found {how!r}{near(str(how), WAYS)}")
        if "rows" in said and ("total" in said or "how" in said):
            mistakes.append(f"`replay` says `rows` of each task, or the `total` and how, found {dict(said)}; say one")
        if mistakes:
            raise ConfigError(mistakes)
        return cls(said.get("rows", 0), said.get("total", 0), how)

    def __bool__(self) -> bool:
        return bool(self.rows or self.total)

    def counts(self, sizes: Sequence[int], seed: int) -> list[int]:
        """How many rows of each task are in the buffer when all of them were met.

        Which ones is left to `rows_seed` of the task: a task's rows in their drawn order, so many from the first. That
        order has nothing to do with the numbers, so with a reservoir every row of every task is in the buffer with the
        same probability, over seeds; and a row that has left it never comes back, since with one seed the numbers of
        earlier tasks only fall as more are met.

        Args:
            sizes: rows of each task, in the order they were met.
            seed: of what is drawn.
        """
        if self.rows or not self.total:
            return [self.rows] * len(sizes)
        if self.how == "quota":
            whole, rest = divmod(self.total, max(1, len(sizes)))
            return [whole + (place < rest) for place in range(len(sizes))]
        return reservoir(sizes, self.total, seed)


def reservoir(sizes: Sequence[int], total: int, seed: int) -> list[int]:
    """How many rows of each task a reservoir of `total` holds after all rows went by, task after task.

    Args:
        sizes: rows of each task.
        total: what it holds, above 0.
        seed: of what is drawn; of a longer stream the beginning is drawn the same.

    Example:
        >>> reservoir([3, 4], 10, seed=0), sum(reservoir([30, 40], 10, seed=0))
        ([3, 4], 10)
    """
    held: list[int] = []
    draw, met = random.Random(seed), 0
    for task, size in enumerate(sizes):
        for _ in range(size):
            met += 1
            if len(held) < total:
                held.append(task)
            elif (place := draw.randrange(met)) < total:
                held[place] = task
    return [held.count(task) for task in range(len(sizes))]


def with_rows(item: Any, rows: int) -> Any:
    """An entry for a task in a run file, with fewer training rows, drawn with the seed that it says.

    Example:
        >>> with_rows("rte", 50)
        {'name': 'rte', 'rows': {'train': 50}}
    """
    if isinstance(item, Task):
        return item.with_(rows={**item.rows, "train": rows})
    said = dict(item) if isinstance(item, Mapping) else {"name": item}
    return {**said, "rows": {**(said.get("rows") or {}), "train": rows}}


def rows_met(tasks: Sequence[Task], data_root: str | None) -> list[int]:
    """The training rows of each task: what it says (`rows.train`), else they are looked up.

    Args:
        tasks: in the order they are met.
        data_root: where data sets are looked for first.
    """
    found = []
    for task in tasks:
        said = task.rows.get("train")
        found.append(said if said is not None else len(load_rows(task, data_root=data_root).get("train", ())))
    return found
