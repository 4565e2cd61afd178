"""Branches: tasks share the lower layers, and groups of them part above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from nlp_mtl.depth import layers_of
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.packing import base_of
from nlp_mtl.registry import sharings
from nlp_mtl.sharing.towers import Towers


@sharings.register("branch")
class Branch(Towers):
    """Tasks share the lower layers; above them each group has layers of its own, started from the pretrained ones.

    The shared part is computed once, whoever reads a row. Every task collapses to an ordinary encoder: the shared
    layers and those of its group.

    Args:
        depth: how many layers are shared, from 0 to all; default half of them, rounded down.
        groups: group → its tasks; tasks that are in none have a branch each. `tree` of a run file says both.

    Relations: hard sharing is `depth` of all layers; separate encoders are `depth: 0`. Which tasks belong together is
    another question (Lu et al., 2017, arXiv 1611.05377, find the tree by themselves; Standley et al., 2020, arXiv
    1905.07553).

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["rte", "mrpc"], sharing={"name": "branch", "depth": 1})
        >>> sorted(model.sharing.towers)
        ['mrpc', 'rte']
    """

    paper = "Vandenhende et al., 2019, arXiv 1904.02920"
    cost = "memory for the copied layers; a pass over fewer rows for each group"

    def __init__(
        self,
        encoder: nn.Module,
        tasks: Sequence[str],
        depth: int | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ):
        count = len(layers_of(base_of(encoder)))
        wrong = grouped_wrongly(groups or {}, tasks)
        if depth is not None and not 0 <= depth <= count:
            wrong.append(f"sharing 'branch': `depth` is from 0 to {count} layers of this encoder, found {depth}")
        if wrong:
            raise ConfigError(wrong)
        known = {group: list(members) for group, members in (groups or {}).items()}
        placed = {task for members in known.values() for task in members}
        alone = {task: [task] for task in tasks if task not in placed}
        super().__init__(encoder, tasks, {**known, **alone}, count // 2 if depth is None else depth)


def grouped_wrongly(groups: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> list[str]:
    """What is wrong with groups of tasks, as messages.

    Example:
        >>> grouped_wrongly({"a": ["rte", "rtee"], "b": ["rte"]}, ["rte"])  # doctest: +NORMALIZE_WHITESPACE
        ["sharing 'branch': group 'a' names 'rtee', which is not a task of this run; did you mean 'rte'?",
         "sharing 'branch': a task is in one group, found 'rte' in a and b"]
    """
    wrong: list[str] = []
    places: dict[str, list[str]] = {}
    for group, members in groups.items():
        if isinstance(members, str) or not isinstance(members, Sequence) or not members:
            wrong.append(f"sharing 'branch': group {group!r} is a list of tasks, found {members!r}; write [{tasks[0]}]")
            continue
        if not group.isidentifier():
            wrong.append(f"sharing 'branch': a group's name is letters, digits and _, found {group!r}; rename it")
        for task in dict.fromkeys(members):
            if task not in tasks:
                wrong.append(
                    f"sharing 'branch': group {group!r} names {task!r}, which is not a task of this run"
                    f"{suggestion(str(task), tasks)}"
                )
            places.setdefault(task, []).append(group)
    double = {task: where for task, where in places.items() if len(where) > 1}
    wrong += [
        f"sharing 'branch': a task is in one group, found {task!r} in {' and '.join(where)}"
        for task, where in double.items()
    ]
    taken = set(groups) & {task for task in tasks if task not in places}
    wrong += [
        f"sharing 'branch': {name!r} is a group and a task that is in none; rename the group" for name in sorted(taken)
    ]
    return wrong
