"""What ``nlp_mtl.json`` of a run folder says: made, and read back and checked."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint, registry
from nlp_mtl.errors import ConfigError, RunFolderError, shown, suggestion
from nlp_mtl.heads import Head, head_of_spec
from nlp_mtl.paths import no_name


def spec_of(model: Any) -> dict[str, Any]:
    """What ``nlp_mtl.json`` records of a :class:`nlp_mtl.MultiTaskModel`."""
    tasks = []
    for head in model.heads.values():
        said = head.task.model_dump(mode="json", exclude_unset=True, exclude={"examples"})  # may be rows of the data
        labels = getattr(head, "data_labels", None) or head.labels
        tasks.append({**said, **({"labels": labels} if labels else {}), "head": head.spec})
    return {
        "format": checkpoint.FORMAT,
        "base": model.base,
        "tasks": tasks,
        "strategies": model.strategies,
        "max_length": model.max_length,
        "libraries": versions(),
    }


def read_spec(folder: str | Path) -> dict[str, Any]:
    """What ``nlp_mtl.json`` says.

    Raises:
        RunFolderError: not a run folder, damaged, or written by a newer format.
    """
    file = Path(folder) / checkpoint.SPEC
    if why := no_name(folder):
        raise RunFolderError(f"{shown(str(folder))}: not a run folder ({why}); {runs_near(Path())}")
    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunFolderError(
            f"{folder}: not a run folder ({checkpoint.SPEC} is missing); {runs_near(Path(folder))}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{shown(str(file))}: damaged ({error}); {checkpoint.other_ways(folder)}") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("format"), int):
        raise RunFolderError(f"{file}: damaged (no format version); {checkpoint.other_ways(folder)}")
    if spec["format"] > checkpoint.FORMAT:
        raise RunFolderError(
            f"{file}: reads format {checkpoint.FORMAT} and older, found one written by a newer version (format "
            f"{spec['format']}); update nlp_mtl"
        )
    if wrong := _misspelt(spec):
        raise RunFolderError(f"{file}: damaged ({'; '.join(wrong)}); {checkpoint.other_ways(folder)}")
    return spec


def versions() -> dict[str, str]:
    """The versions of this package, of the libraries that decide what a run computes, and of Python."""
    known = {name: version(name) for name in ("nlp-mtl", "torch", "transformers", "peft", "accelerate", "datasets")}
    return {**known, "python": platform.python_version()}


def _misspelt(spec: Mapping[str, Any]) -> list[str]:
    """What in ``nlp_mtl.json`` is not as it is written."""
    strategies, tasks = spec.get("strategies"), spec.get("tasks")
    named = isinstance(tasks, list) and tasks and all(isinstance(t, dict) and "name" in t for t in tasks)
    right = {
        "tasks": (bool(named), "a list of tasks"),
        "base": (isinstance(spec.get("base"), dict) and "id" in spec["base"], "a mapping with `id`"),
        "strategies": (isinstance(strategies, dict) and {"sharing", "freeze"} <= set(strategies), "with `sharing`, …"),
        "max_length": (isinstance(spec.get("max_length"), int), "a whole number"),
    }
    return [f"`{key}` is {rule}, found {shown(spec.get(key))}" for key, (holds, rule) in right.items() if not holds]


def runs_near(folder: Path) -> str:
    """Run folders beside or below a folder that is none, as the end of a message."""
    for above in (folder, folder.parent):
        if found := sorted(str(file.parent) for file in above.glob(f"*/{checkpoint.SPEC}")):
            return f"run folders are {', '.join(found[:3])}"
    return "name a folder that nlp-mtl train wrote"


def unknown_tasks(asked: Sequence[str], known: Sequence[str], verb: str = "predict") -> list[str]:
    """A mistake for each name that a model has no task of.

    Example:
        >>> unknown_tasks(["mood", "moood"], ["mood", "alike"])
        ["predict: 'moood' is not a task of this model; did you mean 'mood'?"]
    """
    return [
        f"{verb}: {task!r} is not a task of this model{suggestion(task, known)}" for task in asked if task not in known
    ]


def heads_of(spec: Mapping[str, Any], folder: str | Path, tasks: Sequence[str] | None = None) -> dict[str, Head]:
    """The heads of the tasks that a run folder records.

    Args:
        spec: see :func:`read_spec`.
        folder: where it was read, for messages.
        tasks: only these, and the tasks whose modules they borrow.

    Raises:
        RunFolderError: tasks that this version can't make, or a head or sharing that only the user's own file knows.
        ConfigError: `tasks` that the run does not have.
    """
    items = {item["name"]: item for item in spec["tasks"]}
    if tasks is not None:
        if isinstance(tasks, str):
            raise ConfigError(f"predict: `tasks` is a list of names, found {tasks!r}; write [{tasks!r}]")
        if mistakes := unknown_tasks(tasks, list(items)):
            raise ConfigError(mistakes)
        lent = {items[task].get("head_of") or task for task in tasks}
        items = {name: item for name, item in items.items() if name in lent or name in tasks}
    try:
        registry.sharings[registry.parse_spec(spec["strategies"]["sharing"], "sharing")[0]]
        heads = {name: head_of_spec(item) for name, item in items.items()}
    except ConfigError as error:
        raise RunFolderError(
            f"{Path(folder) / checkpoint.SPEC}: its tasks can't be made: {error}; import your own file that registers "
            f"what is unknown before, or {checkpoint.other_ways(folder)}"
        ) from error
    for head in heads.values():
        try:
            head.load_files(Path(folder))
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(
                f"{folder}: what builds the decoder of {head.task.name!r} is missing or damaged ({error}); "
                f"{checkpoint.other_ways(folder)}"
            ) from error
    return heads
