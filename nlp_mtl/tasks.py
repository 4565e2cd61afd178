"""The task registry: folders of task files, and tasks by name, tag, path or mapping."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from nlp_mtl import registry as strategies
from nlp_mtl.errors import ConfigError, shown, suggestion
from nlp_mtl.innertasks import with_inner_tasks
from nlp_mtl.paths import no_name
from nlp_mtl.taskfile import Task, fields_of, validated
from nlp_mtl.taskreader import Fragments, ParsedTask, parse_task, read_task


class TaskRegistry:
    """The tasks of some folders, parsed once and checked when asked for; later folders win over earlier ones.

    A broken file or missing folder hides no other task, and is not passed over in silence: :attr:`mistakes` names it,
    and asking for a task or tag that it holds, or may hold because its name can't be read, raises.

    Args:
        folders: searched for ``*.yaml``, also in sub-folders; files that begin with ``_`` are fragments for `include:`.
    """

    def __init__(self, folders: Iterable[str | Path]):
        self.folders = [Path(folder) for folder in folders]
        self._parsed: list[ParsedTask] = []
        self._named: dict[str, ParsedTask] = {}  # the file that counts for a name
        self._twice: dict[str, list[str]] = {}  # names that stand in several files of one folder → what to say
        self._unread: list[ConfigError] = []  # folders that are missing, files whose name and tags can't be known
        self._checked: dict[Path, Task] = {}
        fragments: Fragments = {}
        for folder in self.folders:
            if not folder.is_dir():
                said = (
                    f"task registry {folder}: no such folder; correct `registry:` in the run file, or NLP_MTL_REGISTRY "
                    f"(folders separated by {os.pathsep!r})"
                )
                self._unread.append(ConfigError(said))
                continue
            here: dict[str, ParsedTask] = {}
            for file in task_files(folder):
                try:
                    parsed = parse_task(file, root=folder, fragments=fragments)
                    if not _has_name_and_tags(parsed.data):
                        self._check(parsed)
                except ConfigError as error:
                    self._unread.append(error)
                    continue
                self._parsed.append(parsed)
                name = parsed.data["name"]
                if name in here:
                    said = f"{file}: one file for a name, found the task {name!r} in {here[name].file} too; rename one"
                    self._twice.setdefault(name, []).append(said)
                here.setdefault(name, parsed)
            self._named.update(here)

    def _check(self, parsed: ParsedTask) -> Task:
        if parsed.file not in self._checked:
            self._checked[parsed.file] = parsed.checked()
        return self._checked[parsed.file]

    @cached_property
    def mistakes(self) -> list[str]:
        """What is wrong with any of the files, each with file and line."""
        said = [mistake for error in self._unread for mistake in error.mistakes]
        for parsed in self._parsed:
            try:
                self._check(parsed)
            except ConfigError as error:
                said += error.mistakes
        said += [mistake for twins in self._twice.values() for mistake in twins]
        return list(dict.fromkeys(said))  # a broken fragment once, not once for each file that includes it

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name.

        Raises:
            ConfigError: all mistakes of all files, if there are any.
        """
        if self.mistakes:
            raise ConfigError(self.mistakes)
        return self.sound()

    def sound(self) -> dict[str, Task]:
        """The tasks whose files are right, by name; :attr:`mistakes` says what is wrong with the others."""
        good = {}
        for name, parsed in self._named.items():
            with suppress(ConfigError):  # it is in `mistakes`
                if name not in self._twice:
                    good[name] = self._check(parsed)
        return good

    def tags(self) -> dict[str, list[str]]:
        """Suites: tag → names of its tasks."""
        suites: dict[str, list[str]] = {}
        for name, parsed in self._named.items():
            for tag in parsed.data.get("tags", []):
                suites.setdefault(tag, []).append(name)
        return suites

    def find(self, name: str) -> list[Task]:
        """The task of this name, or the tasks with this tag; the files of no others are checked.

        Raises:
            ConfigError: neither, with near names and tags; or files that hold them, or may do so, are broken.
        """
        names = [name] if name in self._named else self.tags().get(name, [])
        mistakes = [mistake for error in self._unread for mistake in error.mistakes]
        mistakes += [] if names else [self._unknown(name)]
        found = []
        for one in names:
            try:
                found.append(self._check(self._named[one]))
            except ConfigError as error:
                mistakes += error.mistakes
            mistakes += self._twice.get(one, [])
        if mistakes:
            raise ConfigError(list(dict.fromkeys(mistakes)))
        return found

    def _unknown(self, name: str) -> str:
        near = suggestion(name, [*self._named, *self.tags()])
        return f"unknown task or tag {name!r}{near} (nlp-mtl tasks list shows all)"

    def select(self, *, tag: str | None = None, head: str | None = None, language: str | None = None) -> list[Task]:
        """The sound tasks with this tag, this kind of head and this language; what is None is not asked for.

        Raises:
            ConfigError: values that no task has, all at once, each with near ones.

        Example:
            >>> [task.name for task in task_registry().select(tag="glue", head="regression")]
            ['stsb']
        """
        wanted = {"tag": tag, "head": head, "language": language}
        tasks = self.sound()
        have = {
            task.name: {"tag": task.tags, "head": [task.head_name], "language": [task.language]}
            for task in tasks.values()
        }
        mistakes = []
        for key, value in wanted.items():
            known = sorted({one for said in have.values() for one in said[key]})
            if value is not None and value not in known:
                mistakes.append(f"no task has the {key} {value!r}{suggestion(value, known)}")
        if mistakes:
            raise ConfigError([*mistakes, *self.mistakes])
        return [
            task
            for task in tasks.values()
            if all(value is None or value in have[task.name][key] for key, value in wanted.items())
        ]

    def without_one(self, **wanted: str | None) -> str:
        """What there is where no task has all of several values: for each left out, what the other tasks have of it.

        Args:
            wanted: as for :meth:`select`, which found none.
        """
        said = []
        for key in [key for key, value in wanted.items() if value is not None]:
            found = self.select(**{**wanted, key: None})
            of = {"tag": lambda t: t.tags, "head": lambda t: [t.head_name], "language": lambda t: [t.language]}[key]
            have = sorted({one for task in found for one in of(task)})
            rest = " and ".join(f"{name} {value}" for name, value in wanted.items() if value and name != key)
            if have:
                more = f", … ({len(have)} in all)" if len(have) > 12 else ""
                said.append(f"\n  tasks of {rest} have the {key} {', '.join(have[:12])}{more}")
        return "".join(said)


def _has_name_and_tags(data: Mapping[str, Any]) -> bool:
    tags = data.get("tags", [])
    return isinstance(data.get("name"), str) and isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)


def task_files(folder: str | Path) -> list[Path]:
    """The task files of a folder and its sub-folders, in order: YAML files but for fragments and the package table."""
    return [file for file in _yaml_files(folder) if not file.name.startswith("_") and file.name != "packages.yaml"]


def _yaml_files(folder: str | Path) -> list[Path]:
    return sorted([*Path(folder).rglob("*.yaml"), *Path(folder).rglob("*.yml")])


def builtin_folder() -> Path:
    """The registry that comes with the package: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "task_registry"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "task_registry"


def registry_folders(more: Sequence[str | Path] = ()) -> tuple[Path, ...]:
    """The built-in registry, then those of ``NLP_MTL_REGISTRY`` (separated like PATH), then `more`."""
    wrong = [(folder, why) for folder in more if (why := no_name(folder))]
    if wrong:
        raise ConfigError(
            [
                f"task registry: a folder, found {shown(str(folder))} ({why}); correct `registry:`"
                for folder, why in wrong
            ]
        )
    named = [part for part in os.environ.get("NLP_MTL_REGISTRY", "").split(os.pathsep) if part]
    return tuple(Path(folder).expanduser() for folder in (builtin_folder(), *named, *more))


@lru_cache(maxsize=8)
def _registry(folders: tuple[Path, ...], stamps: tuple[tuple[str, int, int], ...]) -> TaskRegistry:
    return TaskRegistry(folders)


def task_registry(more: Sequence[str | Path] = ()) -> TaskRegistry:
    """The registry of :func:`registry_folders`, parsed once per process and again when a file in it changes."""
    folders = registry_folders(more)
    stats = ((str(file), file.stat()) for folder in folders for file in _yaml_files(folder))
    return _registry(folders, tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats))


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
    known = cache(lambda: task_registry(registry))  # it looks at all its files: once, and only if a name is asked for
    for item in items:
        try:
            for task in _tasks_of(item, known):
                if task.name in found and found[task.name] != task:
                    mistakes.append(f"the task {task.name!r} is asked for twice, in two forms; rename or drop one")
                found.setdefault(task.name, task)
        except ConfigError as error:
            mistakes += error.mistakes
    mistakes += _check_heads_shared(found)
    if not items:
        mistakes.append(
            "tasks: at least one is needed, found that no task was named; name one (nlp-mtl tasks list shows all)"
        )
    for name, task in found.items():
        try:
            found[name] = with_inner_tasks(task, lambda name: _tasks_of(name, known), found)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return list(found.values())


def inner_tasks(task: Task) -> tuple[Task, ...]:
    """The tasks whose texts a task with ``dataset: {path: tasks}`` reads.

    Raises:
        ConfigError: tasks that are unknown, or whose texts do not go together.
    """
    return task.inner or with_inner_tasks(task, lambda name: _tasks_of(name, task_registry), {}).inner


def _is_many(wanted: Any) -> bool:
    return isinstance(wanted, Iterable) and not isinstance(wanted, bytes)


def _tasks_of(item: Any, known: Callable[[], TaskRegistry]) -> list[Task]:
    if isinstance(item, Task):
        return [item]
    if isinstance(item, Mapping):
        changes = dict(item)
        name = changes.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"a task given as a mapping needs `name`, found {dict(item)!r}; add its name or file")
        place = f"task {name!r}"
        return [validated({**fields_of(task), **changes}, place) for task in _tasks_of(name, known)]
    if not isinstance(item, (str, Path)):
        raise ConfigError(f"a task is a name, a tag, a YAML path, a mapping or a Task, found {item!r}; e.g. 'rte'")
    path = Path(item)
    if path.suffix in (".yaml", ".yml"):
        return [read_task(path)]
    return known().find(str(item))


def _heads_that_differ(owner: Task, task: Task) -> list[str]:
    """What keeps a task from using another one's head: another kind, arguments of the module, or labels of it."""
    both = f"tasks {task.name!r} and {owner.name!r} share a head: `head` and `labels` must agree"
    (one, mine), (other, theirs) = (strategies.parse_spec(each.head, "head") for each in (task, owner))
    if one != other:
        return [f"{both}, found {one} and {other}; leave out `head_of`"]
    differing = [key for key in mine if mine[key] != theirs.get(key)]
    relabelled = (owner.labels or task.labels) != (task.labels or owner.labels)
    if not differing and not relabelled:
        return []
    known = one in strategies.heads  # which imports the heads, and so comes last; an unknown one is refused elsewhere
    kind = strategies.heads[one] if known else None
    wrong = [
        f"{both}, found `{key}` {shown(mine[key])} and {shown(theirs.get(key))}; leave it out in {task.name!r}"
        for key in differing
        if key not in getattr(kind, "own_when_lent", ())
    ]
    if relabelled and getattr(kind, "by_labels", True):
        wrong.append(
            f"{both}, found {', '.join(task.labels or [])} and {', '.join(owner.labels or [])}; leave `labels` out in "
            f"{task.name!r}, or leave out `head_of`"
        )
    return wrong


def _check_heads_shared(tasks: Mapping[str, Task]) -> list[str]:
    mistakes = []
    for task in tasks.values():
        if task.head_of is None:
            continue
        owner = tasks.get(task.head_of)
        if owner is None:
            mistakes.append(
                f"task {task.name!r} uses the head of {task.head_of!r}, which is not among the tasks; add it, or "
                "leave out `head_of`"
            )
        elif owner.head_of is not None:
            mistakes.append(f"task {task.name!r}: `head_of` names {owner.name!r}, which itself borrows a head")
        else:
            mistakes += _heads_that_differ(owner, task)
    return mistakes
