"""What a group of tasks is expected to be worth, by an affinity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Served = frozenset[int]


class Worth:
    """The expected scores of tasks in groups.

    A task in a group is worth the mean affinity from the other members to it; alone, its own number. Of the groups that
    serve a set of tasks, :meth:`of` takes the best: with helpers, tasks from outside may be trained with them.

    Args:
        values: [m, m], helper × helped; the diagonal does not count.
        alone: [m], what each task is worth alone.
        helpers: whether a task may help in a group that does not serve it.

    Relations: the mean over pairs is the estimate of higher-order groups of Fifty et al. (2021, arXiv 2109.04617);
    a task that helps in another group, Standley et al. (2020, arXiv 1905.07553).

    Example:
        >>> worth = Worth(np.array([[0, 0.4, 0], [0.2, 0, 0], [0.8, 0, 0]]), np.zeros(3), helpers=True)
        >>> value, group = worth.of(frozenset({0, 1}))
        >>> round(value, 6), group, worth.of(frozenset({0}))
        (0.7, (0, 1, 2), (0.8, (0, 2)))
    """

    def __init__(self, values: np.ndarray, alone: Sequence[float] | np.ndarray, *, helpers: bool):
        self.values = np.array(values, dtype=float)
        np.fill_diagonal(self.values, 0.0)
        self.alone, self.helpers, self.count = np.asarray(alone, dtype=float), helpers, len(self.values)
        self._known: dict[Served, tuple[float, tuple[int, ...]]] = {}

    def in_group(self, task: int, group: Iterable[int]) -> float:
        """What a task is worth in a group that holds it."""
        others = [other for other in group if other != task]
        return float(self.values[others, task].mean()) if others else float(self.alone[task])

    def of(self, served: Served) -> tuple[float, tuple[int, ...]]:
        """The sum over the tasks that a group serves, and the best such group.

        A helper adds the sum of what it does for those served, and all is divided by the number of others: so the best
        helpers of any number are the first of their order.
        """
        if served not in self._known:
            own = sorted(served)
            best = (sum(self.in_group(task, own) for task in own), tuple(own))
            if self.helpers:
                best = self._with_helpers(own, best)
            self._known[served] = best
        return self._known[served]

    def _with_helpers(self, own: list[int], best: tuple[float, tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
        inside = float(self.values[np.ix_(own, own)].sum())
        adds = self.values[:, own].sum(axis=1)
        order = sorted((task for task in range(self.count) if task not in own), key=lambda task: -adds[task])
        for many in range(1, len(order) + 1):
            value = (inside + float(adds[order[:many]].sum())) / (len(own) - 1 + many)
            if value > best[0] + 1e-12:
                best = (value, tuple(sorted([*own, *order[:many]])))
        return best

    def total(self, blocks: Iterable[Served]) -> float:
        """The sum over the sets of tasks that groups serve."""
        return sum(self.of(block)[0] for block in blocks)

    def at_most(self, task: int, served: Served, free: Iterable[int]) -> float:
        """The most that a task can be worth in a group that serves it with these, whoever of `free` joins them."""
        with_it = [other for other in served if other != task]
        found = float(self.values[with_it, task].sum())
        best = found / len(with_it) if with_it else float(self.alone[task])
        for many, one in enumerate(sorted((float(self.values[other, task]) for other in free), reverse=True), 1):
            found += one
            best = max(best, found / (len(with_it) + many))
        return best
