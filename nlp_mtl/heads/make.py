"""Head objects for tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, UnknownNameError
from nlp_mtl.heads.base import Head
from nlp_mtl.taskfile import Task


def make_heads(tasks: Sequence[Task], more: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Head]:
    """One head per task, with arguments from its file and from `more` (by task, tag or ``"*"``).

    Raises:
        ConfigError: unknown heads or arguments, of all tasks at once.
    """
    mistakes, made = [], {}
    known = {"*", *(task.name for task in tasks), *(tag for task in tasks for tag in task.tags)}
    for key in more or {}:
        if key not in known:
            mistakes.append(f"heads: {key!r} is no task or tag of this run (or '*')")
    listed = {task.name: task.labels for task in tasks}
    for task in tasks:
        if task.head_of and task.labels is None and listed.get(task.head_of):
            task = task.with_(labels=listed[task.head_of])  # the numbers of a shared output layer mean the same
        name, arguments = registry.parse_spec(task.head, "head")
        for key, given in (more or {}).items():
            if key == "*" or key == task.name or key in task.tags:
                takes = registry.heads.check_arguments(name, given, given=1) if name in registry.heads else []
                if not (key == "*" and takes):  # what is said for all goes to the heads that take it
                    arguments.update(given)
        spec = {"name": name, **arguments}
        try:
            head = registry.heads.build(spec, task)
        except ConfigError as error:
            mistakes += [f"task {task.name!r}: {mistake}" for mistake in error.mistakes]
            continue
        head.spec = spec
        mistakes += [f"task {task.name!r}: {m}" for m in _unknown_metrics(head)]
        made[task.name] = head
    if mistakes:
        raise ConfigError(mistakes)
    return made


def _unknown_metrics(head: Head) -> list[str]:
    mistakes = []
    for name in head.metrics:
        if not name.startswith("evaluate:") and name not in registry.metrics:
            mistakes += UnknownNameError("metric", name, registry.metrics.names()).mistakes
    return mistakes


def head_of_spec(item: Mapping[str, Any]) -> Head:
    """The head of a task as ``nlp_mtl.json`` records it."""
    task = Task(**item)
    head = registry.heads.build(task.head, task)
    head.spec = item["head"]
    return head
