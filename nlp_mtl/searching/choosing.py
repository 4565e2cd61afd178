"""From a trial's parameters to a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlp_mtl.affinity import Affinity
from nlp_mtl.searching.plan import Plan
from nlp_mtl.searching.spec import AFFINITY, ALONE, FREE, FROZEN, JOINT, TOGETHER
from nlp_mtl.searching.ways import Choice
from nlp_mtl.taskgroups.proposal import Group, propose_groups

NOBODY = "nobody"


def choose(plan: Plan, trial: Any, affinity: Affinity | None) -> Choice:
    """What a trial does.

    Args:
        plan: of the search.
        trial: an optuna trial.
        affinity: of the tasks, where the search asks for it.
    """
    strategy = plan.space["strategy"].suggest(trial, "strategy") if "strategy" in plan.space else JOINT
    if plan.target is not None:
        groups = _with_helpers(plan, trial, affinity, strategy)
    elif strategy == ALONE:
        groups = alone(list(plan.items))
    else:
        groups = _grouped(plan, trial, affinity)
    changes = {
        name: entry.suggest(trial, name) for name, entry in plan.space.items() if name not in ("grouping", "strategy")
    }
    apart = all(len(group.tasks) == 1 for group in groups)
    return Choice(groups, JOINT if strategy == ALONE or (apart and strategy != FROZEN) else strategy, changes)


def alone(tasks: Sequence[str]) -> tuple[Group, ...]:
    """Each task by itself."""
    return tuple(Group((task,), (task,)) for task in tasks)


def together(tasks: Sequence[str]) -> tuple[Group, ...]:
    """All tasks in one group."""
    return (Group(tuple(tasks), tuple(tasks)),)


def grouped(lists: Sequence[Sequence[str]]) -> tuple[Group, ...]:
    """Groups that serve all their tasks."""
    return tuple(Group(tuple(some), tuple(some)) for some in lists)


def _grouped(plan: Plan, trial: Any, affinity: Affinity | None) -> tuple[Group, ...]:
    tasks = list(plan.items)
    kind = plan.space["grouping"].suggest(trial, "grouping") if "grouping" in plan.space else TOGETHER
    if isinstance(kind, list):
        return grouped(kind)
    if kind == ALONE:
        return alone(tasks)
    if kind == AFFINITY and affinity is not None:
        if AFFINITY not in plan.memo:
            plan.memo[AFFINITY] = propose_groups(affinity, plan.file.encoders).groups
        return plan.memo[AFFINITY]
    if kind != FREE:
        return together(tasks)
    numbers = [trial.suggest_categorical(f"group of {task}", list(range(plan.file.encoders))) for task in tasks]
    found: dict[int, list[str]] = {}
    for task, number in zip(tasks, numbers, strict=True):
        found.setdefault(number, []).append(task)
    return grouped(list(found.values()))  # numbers in the order of the tasks: the same groups are the same choice


def _with_helpers(plan: Plan, trial: Any, affinity: Affinity | None, strategy: str) -> tuple[Group, ...]:
    target = str(plan.target)
    if strategy == ALONE:
        return alone([target])
    listed = [*shortlist(plan, affinity), NOBODY]
    slots = [trial.suggest_categorical(f"helper {number + 1}", listed) for number in range(slots_of(plan))]
    chosen = [task for task in plan.items if task in slots]
    return helped(target, chosen)


def helped(target: str, helpers: Sequence[str]) -> tuple[Group, ...]:
    """A target and who helps it."""
    return (Group((target, *helpers), (target,)),)


def slots_of(plan: Plan) -> int:
    """How many tasks may help at once."""
    return min(plan.file.helpers, len(plan.helpers))


def ranked(plan: Plan, affinity: Affinity | None) -> list[tuple[str, float]]:
    """Candidates by their affinity to the target, the highest first."""
    if affinity is None:
        return [(task, 0.0) for task in plan.helpers]
    column = affinity.tasks.index(str(plan.target))
    values = [(task, float(affinity.values[affinity.tasks.index(task), column])) for task in plan.helpers]
    return sorted(values, key=lambda one: -one[1])


def shortlist(plan: Plan, affinity: Affinity | None) -> list[str]:
    """The candidates that trials try."""
    most = plan.file.shortlist or 2 * plan.file.helpers
    return [task for task, _ in ranked(plan, affinity)[:most]]


def first_guess(plan: Plan, affinity: Affinity | None) -> dict[str, Any]:
    """What the first trial takes of its parameters: the candidates that are first by affinity, or all together."""
    if plan.target is None:
        return {}
    best = shortlist(plan, affinity)[: slots_of(plan)]
    return {f"helper {number + 1}": task for number, task in enumerate(best)}
