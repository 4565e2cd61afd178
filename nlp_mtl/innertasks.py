"""The tasks whose texts another one reads: found, checked, and recorded (``dataset: {path: tasks, tasks: […]}``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nlp_mtl.errors import ConfigError
from nlp_mtl.taskfile import TASKS, Task, fields_of, validated


def with_inner_tasks(task: Task, find: Callable[[str], list[Task]], beside: Mapping[str, Task]) -> Task:
    """A task with the tasks found that its `dataset.tasks` name; others as they are.

    Args:
        task: the task.
        find: gives the tasks of a name, tag or path.
        beside: tasks of the same run: a name is looked for among them first.

    Raises:
        ConfigError: tasks that are unknown, or whose texts do not go together, all at once.
    """
    if task.dataset.path != TASKS or task.inner:
        return task
    place, inner, mistakes = f"task {task.name!r}: `dataset.tasks`", [], []
    for item in task.dataset.tasks:
        whole = isinstance(item, Mapping) and "dataset" in item and "head" in item  # as a run folder records it
        name = item if isinstance(item, str) else item["name"]
        try:
            if whole:
                some = [Task(**item)]  # type: ignore[arg-type]
            else:
                own = beside.get(name) if name != task.name else None
                some = [own] if own is not None else find(name)
                if isinstance(item, Mapping):
                    changes = {key: value for key, value in item.items() if key != "name"}
                    some = [validated({**fields_of(one), **changes}, place) for one in some]
        except ConfigError as error:
            mistakes += [f"{place}: {mistake}" for mistake in error.mistakes]
            continue
        inner += [one.with_(head_of=None) if one.head_of else one for one in some]
    mistakes += _texts_that_differ(task, inner, place)
    if mistakes:
        raise ConfigError(mistakes)
    said = [_as_recorded(one) for one in inner]
    dataset = {**task.dataset.model_dump(exclude_unset=True), "tasks": said}
    return task.with_(dataset=dataset).reading_texts_of(inner)


def _texts_that_differ(task: Task, inner: Sequence[Task], place: str) -> list[str]:
    """What keeps the texts of some tasks from being rows of one."""
    mistakes = [
        f"{place}: names tasks with rows of their own, found {one.name!r}, which reads those of others; name these"
        for one in inner
        if one.dataset.path == TASKS
    ]
    if "domain" in task.inputs:
        mistakes.append(f"task {task.name!r}: the column `domain` holds the tasks' names; call the input otherwise")
    counts = {one.name: 1 if one.template is not None else len(one.inputs) for one in inner}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        mistakes.append(f"{place}: all read equally many texts (`inputs`; a template makes one), found {found}")
    elif counts and (count := next(iter(counts.values()))) != len(task.inputs):
        mistakes.append(
            f"task {task.name!r}: `inputs` names a column for each text of its tasks, which have {count}, found "
            f"{', '.join(task.inputs)}; e.g. inputs: [{'text' if count == 1 else 'text1, text2'}]"
        )
    return mistakes


_OF_ROWS = ("name", "head", "dataset", "inputs", "template", "target", "splits", "split_seed", "prepare")


def _as_recorded(task: Task) -> dict[str, Any]:
    """What a run folder records of a task whose texts are read: what decides which rows these are."""
    said = task.model_dump(mode="json", exclude_unset=True, include={*_OF_ROWS, "rows", "rows_seed", "metric_columns"})
    return {**said, "head": task.head_name}
