"""The task registry: folders of task files, and tasks by name, tag, path or mapping."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.taskfile import Task, fields_of, read_task, validated


class TaskRegistry:
    """The tasks of some folders, read once; later folders win over earlier ones.

    Args:
        folders: searched for ``*.yaml``, also in sub-folders; files that begin with ``_`` are fragments for `include:`.

    Raises:
        ConfigError: all mistakes of all files, each with file and line.
    """

    def __init__(self, folders: Iterable[str | Path]):
        self.folders = [Path(folder) for folder in folders]
        self.tasks: dict[str, Task] = {}
        mistakes: list[str] = []
        for folder in self.folders:
            if not folder.is_dir():
                mistakes.append(
                    f"task registry {folder}: no such folder; correct `registry:` in the run file, or NLP_MTL_REGISTRY "
                    f"(folders separated by {os.pathsep!r})"
                )
                continue
            here: dict[str, Task] = {}
            for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
                if file.name.startswith("_") or file.name == "packages.yaml":
                    continue
                try:
                    task = read_task(file, root=folder)
                except ConfigError as error:
                    mistakes += error.mistakes
                    continue
                if task.name in here:
                    mistakes.append(f"{file}: the task {task.name!r} stands in {here[task.name].file} too")
                here[task.name] = task
            self.tasks.update(here)
        if mistakes:
            raise ConfigError(mistakes)

    def tags(self) -> dict[str, list[str]]:
        """Suites: tag → names of its tasks."""
        suites: dict[str, list[str]] = {}
        for task in self.tasks.values():
            for tag in task.tags:
                suites.setdefault(tag, []).append(task.name)
        return suites

    def find(self, name: str) -> list[Task]:
        """The task of this name, or the tasks with this tag.

        Raises:
            ConfigError: neither; suggests near names and tags.
        """
        if name in self.tasks:
            return [self.tasks[name]]
        suites = self.tags()
        if name in suites:
            return [self.tasks[task] for task in suites[name]]
        known = [*self.tasks, *suites]
        raise ConfigError(f"unknown task or tag {name!r}{suggestion(name, known)} (nlp-mtl tasks list shows all)")

    def select(self, *, tag: str | None = None, head: str | None = None, language: str | None = None) -> list[Task]:
        """The tasks with this tag, this kind of head and this language; what is None is not asked for.

        Raises:
            ConfigError: values that no task has, all at once, each with near ones.

        Example:
            >>> [task.name for task in task_registry().select(tag="glue", head="regression")]
            ['stsb']
        """
        wanted = {"tag": tag, "head": head, "language": language}
        have = {
            task.name: {"tag": task.tags, "head": [task.head_name], "language": [task.language]}
            for task in self.tasks.values()
        }
        mistakes = []
        for key, value in wanted.items():
            known = sorted({one for said in have.values() for one in said[key]})
            if value is not None and value not in known:
                mistakes.append(f"no task has the {key} {value!r}{suggestion(value, known)}")
        if mistakes:
            raise ConfigError(mistakes)
        return [
            task
            for task in self.tasks.values()
            if all(value is None or value in have[task.name][key] for key, value in wanted.items())
        ]


def builtin_folder() -> Path:
    """The registry that comes with the package: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "task_registry"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "task_registry"


def registry_folders(more: Sequence[str | Path] = ()) -> tuple[Path, ...]:
    """The built-in registry, then those of ``NLP_MTL_REGISTRY`` (separated like PATH), then `more`."""
    named = [part for part in os.environ.get("NLP_MTL_REGISTRY", "").split(os.pathsep) if part]
    return tuple(Path(folder).expanduser() for folder in (builtin_folder(), *named, *more))


@lru_cache(maxsize=8)
def _registry(folders: tuple[Path, ...], times: tuple[tuple[str, int], ...]) -> TaskRegistry:
    return TaskRegistry(folders)


def task_registry(more: Sequence[str | Path] = ()) -> TaskRegistry:
    """The registry of :func:`registry_folders`, read once per process and again when a file in it changes."""
    folders = registry_folders(more)
    files = sorted(file for folder in folders for file in folder.rglob("*.y*ml"))
    return _registry(folders, tuple((str(file), file.stat().st_mtime_ns) for file in files))


def load_tasks(
    wanted: str | Path | Task | Mapping[str, Any] | Sequence[str | Path | Task | Mapping[str, Any]],
    *,
    registry: Sequence[str | Path] = (),
) -> list[Task]:
    """Tasks by name, by tag, by YAML path, or as a mapping ``{name: …, changes}``.

    Args:
        wanted: one or several of: a task's name, a tag (all its tasks), the path of a YAML file, a :class:`Task`, or a
            mapping with `name` (as above) and fields to change, e.g. ``{"name": "sst2", "rows": {"train": 16000}}``.
        registry: more registry folders; see :func:`registry_folders`.

    Returns:
        The tasks in the order asked for, each once.

    Raises:
        ConfigError: everything that is wrong, at once.

    Example:
        >>> [task.name for task in load_tasks(["rte", "mrpc"])]
        ['rte', 'mrpc']
    """
    items = [wanted] if isinstance(wanted, (str, Path, Task, Mapping)) or not _is_many(wanted) else list(wanted)
    found: dict[str, Task] = {}
    mistakes: list[str] = []
    for item in items:
        try:
            for task in _tasks_of(item, registry):
                if task.name in found and found[task.name] != task:
                    mistakes.append(f"the task {task.name!r} is asked for twice, in two forms; rename or drop one")
                found.setdefault(task.name, task)
        except ConfigError as error:
            mistakes += error.mistakes
    mistakes += _check_heads_shared(found)
    if not items:
        mistakes.append("no task was named; name at least one (nlp-mtl tasks list shows all)")
    if mistakes:
        raise ConfigError(mistakes)
    return list(found.values())


def _is_many(wanted: Any) -> bool:
    return isinstance(wanted, Iterable) and not isinstance(wanted, bytes)


def _tasks_of(item: Any, registry: Sequence[str | Path]) -> list[Task]:
    if isinstance(item, Task):
        return [item]
    if isinstance(item, Mapping):
        changes = dict(item)
        name = changes.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"a task given as a mapping needs `name`, found {dict(item)!r}")
        place = f"task {name!r}"
        return [validated({**fields_of(task), **changes}, place) for task in _tasks_of(name, registry)]
    if not isinstance(item, (str, Path)):
        raise ConfigError(f"a task is a name, a tag, a YAML path, a mapping or a Task, found {item!r}")
    path = Path(item)
    if path.suffix in (".yaml", ".yml"):
        return [read_task(path)]
    return task_registry(registry).find(str(item))


def _head(task: Task) -> dict[str, Any]:
    return {"name": task.head} if isinstance(task.head, str) else dict(task.head)


def _check_heads_shared(tasks: Mapping[str, Task]) -> list[str]:
    mistakes = []
    for task in tasks.values():
        if task.head_of is None:
            continue
        owner = tasks.get(task.head_of)
        if owner is None:
            mistakes.append(
                f"task {task.name!r} uses the head of {task.head_of!r}, which is not among the tasks; add it"
            )
        elif owner.head_of is not None:
            mistakes.append(f"task {task.name!r}: `head_of` names {owner.name!r}, which itself borrows a head")
        elif _head(owner) != _head(task) or (owner.labels or task.labels) != (task.labels or owner.labels):
            mistakes.append(f"tasks {task.name!r} and {owner.name!r} share a head: `head` and `labels` must agree")
    return mistakes
