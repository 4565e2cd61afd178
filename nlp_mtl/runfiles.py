"""Files that a run file names: looked for beside it, then in the working folder; and task files that a run writes."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import yamlfile
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError, shown
from nlp_mtl.files import resolve_files
from nlp_mtl.paths import no_name
from nlp_mtl.taskfile import LOCAL_FORMATS, Task

_TASK_FILES = "task_files"
FROM_RUNS = ("importance", "earlier")  # arguments of regularizers that name an earlier run's folder, or a file of it


def beside(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The run file's mapping, with paths that lead somewhere from its own folder told from the working folder.

    Task files, folders of `registry`, `data_root`, folders in `model` and `init_from`, what regularizers take of
    earlier runs, and `teacher` of `distillation` are paths; what is not there stays as it is.
    """
    found = dict(data)
    for key in ("data_root", "model", "init_from"):
        if key in found:
            said = found[key]
            more = isinstance(said, dict) and "run" in said
            found[key] = {**said, "run": _from(folder, said["run"])} if more else _from(folder, said)
    if "regularizers" in found:
        kept = found["regularizers"]
        found["regularizers"] = (
            [_of_runs(folder, one) for one in kept] if isinstance(kept, list) else _of_runs(folder, kept)
        )
    if "distillation" in found:
        taught = found["distillation"]
        found["distillation"] = (
            [_teacher(folder, one) for one in taught] if isinstance(taught, list) else _teacher(folder, taught)
        )
    if "registry" in found:
        names = found["registry"]
        found["registry"] = [_from(folder, n) for n in names] if isinstance(names, list) else _from(folder, names)
    if "tasks" in found:
        tasks = found["tasks"]
        found["tasks"] = [_task(folder, item) for item in tasks] if isinstance(tasks, list) else _task(folder, tasks)
    if isinstance(found.get("stages"), list):
        found["stages"] = [beside(part, folder) if isinstance(part, dict) else part for part in found["stages"]]
    return found


def _of_runs(folder: Path, one: Any) -> Any:
    named = [key for key in FROM_RUNS if key in one] if isinstance(one, dict) else []
    return {**one, **{key: _from(folder, one[key]) for key in named}} if named else one


def _teacher(folder: Path, one: Any) -> Any:
    if not isinstance(one, dict):
        return one
    return {key: _from(folder, said) if key in ("teacher", "base") else said for key, said in one.items()}


def _task(folder: Path, item: Any) -> Any:
    if isinstance(item, dict):
        spec = item.get("dataset")
        if isinstance(spec, dict) and isinstance(spec.get("tasks"), list):
            item = {**item, "dataset": {**spec, "tasks": [_task(folder, one) for one in spec["tasks"]]}}
        return {**item, "name": _task(folder, item["name"])} if "name" in item else item
    return _from(folder, item) if isinstance(item, str) and item.endswith((".yaml", ".yml")) else item


def _from(folder: Path, name: Any) -> Any:
    if not isinstance(name, str) or not name or no_name(name) or Path(name).is_absolute():
        return name  # what is wrong with it is told where it is opened
    if not (folder / name).exists():
        return name
    return str(folder / name)


def write_task_file(task: Task, run: Path) -> str:
    """The file of a task that a run was given as a Python object; local data files are told from the file's folder.

    Rows in memory are not written: the file says that they were given in Python, and what is known of them.

    Returns:
        The file's path from the run folder.
    """
    folder = run / _TASK_FILES
    folder.mkdir(parents=True, exist_ok=True)
    said = task.model_dump(mode="json", exclude_unset=True, exclude={"examples"})
    for one, part in [(task, said), *zip(task.inner, said["dataset"].get("tasks", ()), strict=False)]:
        spec = one.dataset
        if spec.path in LOCAL_FORMATS and not spec.package:
            found = resolve_files(one, spec, None)
            part["dataset"]["data_files"] = {
                split: [os.path.relpath(file, folder) for file in files] for split, files in found.items()
            }
    write_text(folder / f"{task.name}.yaml", yamlfile.dumps(said))
    return f"{_TASK_FILES}/{task.name}.yaml"


class _Reader(importlib.machinery.SourceFileLoader):
    """Reads a user's file and leaves no ``__pycache__`` beside it: a run that is refused writes nothing."""

    def set_data(self, path: str, data: Any, **more: Any) -> None:
        """Not written."""


def import_files(names: Sequence[str], folder: Path, where: str) -> list[str]:
    """Import the user's own files, so that what they register is known; messages for those that are not there.

    Args:
        names: the Python files.
        folder: the run file's folder.
        where: run file and line, for messages.

    Raises:
        ConfigError: a file that fails.
    """
    mistakes = []
    for name in names:
        places = () if no_name(name) else (folder / name, Path(name))
        file = next((path for path in places if path.is_file()), None)
        if file is None:
            mistakes.append(
                f"{where}: `imports`: no file {shown(name)} beside the run file or in the working folder; put "
                "it there, or leave it out"
            )
            continue
        module_name = f"nlp_mtl_imports_{file.stem}"
        if module_name in sys.modules and getattr(sys.modules[module_name], "__file__", None) == str(file.resolve()):
            continue
        spec = importlib.util.spec_from_file_location(module_name, file.resolve())
        if spec is None or spec.loader is None:
            mistakes.append(f"{where}: `imports`: {name!r} is not a Python file")
            continue
        loader = _Reader(module_name, str(file.resolve()))
        module = importlib.util.module_from_spec(
            importlib.machinery.ModuleSpec(module_name, loader, origin=loader.path)
        )
        module.__file__ = loader.path
        sys.modules[module_name] = module
        try:
            loader.exec_module(module)
        except Exception as error:  # whatever the user's file raises is theirs to see, with its place
            del sys.modules[module_name]
            raise ConfigError(
                f"{where}: `imports`: {file} fails: {type(error).__name__}: {error}; correct it, or leave it out"
            ) from error
    return mistakes
