"""Which tasks to train together: proposed from an affinity, under a budget of encoders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nlp_mtl.affinity import Affinity
from nlp_mtl.errors import ConfigError, near, suggestion
from nlp_mtl.taskgroups.clustering import clustering
from nlp_mtl.taskgroups.exact import branch_and_bound, exhaustive
from nlp_mtl.taskgroups.worth import Served, Worth

Method = Literal["auto", "exhaustive", "branch_and_bound", "clustering"]
METHODS = ("auto", "exhaustive", "branch_and_bound", "clustering")
FEW, MEDIUM = 7, 12  # up to so many tasks all groups are looked at; up to so many the best are found for certain


@dataclass(frozen=True)
class Group:
    """Tasks that are trained together.

    Attributes:
        tasks: all of them.
        serves: those that take their model from here; the others help.
    """

    tasks: tuple[str, ...]
    serves: tuple[str, ...]

    @property
    def helpers(self) -> tuple[str, ...]:
        """Those that are only trained with the others."""
        return tuple(task for task in self.tasks if task not in self.serves)


@dataclass(frozen=True)
class Grouping:
    """A proposal.

    Attributes:
        groups: each is one encoder; every task is served by exactly one.
        gains: task → expected gain over being alone, in the affinity's unit.
        encoders: how many were allowed.
        apart: tasks that no other one is expected to help, and that help none.
        method: how it was found.
        exact: whether no other choice of groups has a greater expected gain (tasks that are put apart aside).
        measure: of the affinity.
    """

    groups: tuple[Group, ...]
    gains: dict[str, float]
    encoders: int
    apart: tuple[str, ...]
    method: str
    exact: bool
    measure: str

    @property
    def total(self) -> float:
        """The sum of the expected gains."""
        return sum(self.gains.values())

    def group_of(self, task: str) -> Group:
        """The group that serves a task."""
        return next(group for group in self.groups if task in group.serves)

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "format": 1,
            "measure": self.measure,
            "encoders": self.encoders,
            "method": self.method,
            "exact": self.exact,
            "groups": [{"tasks": list(group.tasks), "serves": list(group.serves)} for group in self.groups],
            "gains": {task: round(gain, 6) for task, gain in self.gains.items()},
            "apart": list(self.apart),
        }

    def table(self) -> list[dict[str, str]]:
        """A row for each task, as text: its group, who helps it, and what it is expected to gain."""
        rows = []
        for number, group in enumerate(self.groups, 1):
            for task in group.serves:
                others = ", ".join(one for one in group.tasks if one != task)
                rows.append(
                    {
                        "group": str(number),
                        "task": task,
                        "trained with": others or "—",
                        "gain": f"{self.gains[task]:+.3f}",
                    }
                )
        return rows

    def sentences(self) -> list[str]:
        """What is proposed, in words."""
        rest = " of the tasks that are not put apart" if self.apart else ""
        how = (
            f"no other groups{rest} have a greater expected gain"
            if self.exact
            else "found by clustering, not proven best"
        )
        said = [
            f"{len(self.groups)} encoder(s) of {self.encoders} allowed; expected gain over each task alone, by "
            f"{self.measure}: {self.total:+.3f} in all ({how})."
        ]
        if self.apart:
            alone = [task for task in self.apart if self.group_of(task).tasks == (task,)]
            forced = [task for task in self.apart if task not in alone]
            if alone:
                said.append(
                    f"Put apart, since no other task is expected to help them, nor they any: {', '.join(alone)}."
                )
            if forced:
                said.append(
                    f"No other task is expected to help {', '.join(forced)}, but {self.encoders} encoder(s) leave no "
                    "room to put them apart; allow more."
                )
        if len(self.apart) == len(self.gains):
            said.append(
                f"No affinity is above what a task is worth alone. If 0 is not that in {self.measure}, as it is not in "
                "leep and nce, say what is: --alone."
            )
        if lost := [task for task, gain in self.gains.items() if gain < 0]:
            said.append(f"Expected to lose in their group: {', '.join(lost)}; more encoders would spare them that.")
        return said


def propose_groups(
    affinity: Affinity,
    encoders: int,
    *,
    helpers: bool = True,
    alone: float | Mapping[str, float] = 0.0,
    method: Method = "auto",
) -> Grouping:
    """Which tasks to train together so that the sum of expected gains is greatest.

    In a group a task is worth the mean affinity from the other members to it; alone, `alone`. Every task is served by
    one group. A task that no other is expected to help (its affinity from all others is at most `alone`), and that
    helps none, is put apart first: into an encoder of its own, as long as one is left for the rest.

    Args:
        affinity: tasks × tasks, helper × helped; the diagonal does not count.
        encoders: at most so many groups.
        helpers: a task may also be trained in groups that do not serve it (Standley et al.); false parts the tasks.
        alone: what a task is worth alone, for all or by task, in the affinity's unit.
        method: `exhaustive`, `branch_and_bound`, `clustering`, or `auto`: the first for up to 7 tasks, the second for
            up to 12, the third for more.

    Raises:
        ConfigError: encoders below 1; unknown names; affinities that are not known; all of it at once.

    Relations: Standley et al. (2020, arXiv 1905.07553) choose overlapping groups from measured losses of networks,
    Fifty et al. (2021, arXiv 2109.04617) from the mean of pairwise affinities, as here.

    cost: of the exact ways it grows faster than 2 to the number of tasks, and is seconds at 12; clustering takes less
    than a second for 30.

    Example:
        >>> values = np.array([[0, 0.3, -0.2], [0.2, 0, -0.1], [-0.1, -0.3, 0]])
        >>> found = propose_groups(Affinity(("rte", "mrpc", "noise"), values, "example"), 2)
        >>> [group.tasks for group in found.groups], round(found.total, 3)
        ([('rte', 'mrpc'), ('noise',)], 0.5)
    """
    tasks, mistakes = affinity.tasks, []
    if isinstance(encoders, bool) or not isinstance(encoders, int) or encoders < 1:
        mistakes.append(f"groups: `encoders` is a whole number from 1, found {encoders!r}; e.g. 2")
    if method not in METHODS:
        mistakes.append(
            f"groups: `method` is one of {', '.join(METHODS)}, found {method!r}{near(str(method), METHODS)}"
        )
    given = dict(alone) if isinstance(alone, Mapping) else dict.fromkeys(tasks, alone)
    mistakes += [f"groups: `alone` names {one!r}{suggestion(str(one), tasks)}" for one in given if one not in tasks]
    if wrong := [one for one, value in given.items() if not math.isfinite(value)]:
        mistakes.append(f"groups: `alone` is a finite number, found none for {', '.join(map(str, wrong))}")
    many = len(tasks)
    unknown = [
        f"{tasks[i]} → {tasks[j]}"
        for i in range(many)
        for j in range(many)
        if i != j and not np.isfinite(affinity.values[i, j])
    ]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        mistakes.append(
            f"groups: every task's affinity to every other must be known, found none for "
            f"{', '.join(unknown[:5])}{more}; measure them, or take some of the tasks (Affinity.of)"
        )
    if mistakes:
        raise ConfigError(mistakes)
    baseline = np.array([given.get(task, 0.0) for task in tasks])
    worth = Worth(affinity.values, baseline, helpers=helpers)
    everybody = list(range(many))
    apart = _apart(worth)
    rest = [task for task in everybody if task not in apart]
    room = encoders - 1 if rest else encoders
    if not apart or not room:
        blocks, how = _best(worth, everybody, encoders, method)
        parts = [(worth, blocks)]
    else:
        own = min(len(apart), room)
        lone = Worth(affinity.values, baseline, helpers=False)
        theirs = [frozenset({task}) for task in apart] if own == len(apart) else _best(lone, apart, own, method)[0]
        inner = _Without(worth, apart)
        blocks, how = _best(inner, rest, encoders - own, method) if rest else ([], "exhaustive")
        parts = [(inner, blocks), (lone, theirs)]
    groups = _tidied([(who.of(block)[1], block) for who, some in parts for block in some], worth)
    gains = {
        tasks[t]: worth.in_group(t, group) - float(baseline[t])
        for t in everybody
        for group, served in groups
        if t in served
    }
    named = tuple(Group(_names(tasks, group), _names(tasks, served)) for group, served in groups)
    return Grouping(named, gains, encoders, _names(tasks, apart), how, how != "clustering", affinity.measure)


class _Without(Worth):
    """The same, with some tasks that help nobody."""

    def __init__(self, worth: Worth, tasks: Sequence[int]):
        super().__init__(worth.values, worth.alone, helpers=worth.helpers)
        self._left_out = set(tasks)

    def _with_helpers(self, own: list[int], best: tuple[float, tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
        kept = [task for task in range(self.count) if task not in self._left_out]
        inner = Worth(self.values[np.ix_(kept, kept)], self.alone[kept], helpers=True)
        value, group = inner.of(frozenset(kept.index(task) for task in own))
        return value, tuple(kept[task] for task in group)


def _apart(worth: Worth) -> list[int]:
    better = worth.values > worth.alone[None, :] + 1e-12
    np.fill_diagonal(better, False)
    return [task for task in range(worth.count) if not better[:, task].any() and not better[task].any()]


def _best(worth: Worth, tasks: Sequence[int], encoders: int, method: str) -> tuple[list[Served], str]:
    if method == "auto":
        method = "exhaustive" if len(tasks) <= FEW else "branch_and_bound" if len(tasks) <= MEDIUM else "clustering"
    if method == "exhaustive":
        return exhaustive(worth, tasks, encoders), method
    found = clustering(worth, tasks, encoders)
    return (branch_and_bound(worth, tasks, encoders, found) if method == "branch_and_bound" else found), method


def _tidied(groups: Sequence[tuple[tuple[int, ...], Served]], worth: Worth) -> list[tuple[tuple[int, ...], Served]]:
    """Each task is served where it is worth most; groups that serve nobody then, or stand twice, go."""
    kinds = list(dict.fromkeys(group for group, _ in groups))
    serves: dict[tuple[int, ...], set[int]] = {group: set() for group in kinds}
    for task in sorted({task for _, served in groups for task in served}):
        best = max((group for group in kinds if task in group), key=lambda group: worth.in_group(task, group))
        serves[best].add(task)
    kept = [(group, frozenset(served)) for group, served in serves.items() if served]
    return sorted(kept, key=lambda one: min(one[1]))


def _names(tasks: Sequence[str], numbers: Sequence[int] | Served) -> tuple[str, ...]:
    return tuple(tasks[number] for number in sorted(numbers))
