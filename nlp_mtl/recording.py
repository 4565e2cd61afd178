"""What a run folder says of the run file that it was made by; written so that the folder can be moved."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_mtl import config, yamlfile
from nlp_mtl.errors import ConfigError
from nlp_mtl.runfiles import FROM_RUNS, write_task_file
from nlp_mtl.taskfile import LOCAL_FORMATS, TASKS, Task
from nlp_mtl.tasks import inner_tasks, load_tasks

logger = logging.getLogger("nlp_mtl")


def recordable(settings: config.RunConfig, folder: Path) -> dict[str, Any]:
    """The run file for the run folder, its relative paths told from there."""
    said = settings.model_dump(exclude_defaults=True, exclude={"tasks", "stages"})
    said["tasks"] = settings.tasks
    said = _told_from(said, folder)
    if settings.stages:
        said["stages"] = [_told_from(stage, folder) for stage in settings.stages]
    return said


def _told_from(keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    said = dict(keys)
    if "tasks" in said:
        tasks = said["tasks"] if isinstance(said["tasks"], list) else [said["tasks"]]
        said["tasks"] = [_recordable_task(item, folder) for item in tasks]
    for key in ("registry", "data_root"):
        if isinstance(said.get(key), list):
            said[key] = [told_from(folder, item) for item in said[key]]
        elif said.get(key):
            said[key] = told_from(folder, said[key])
    for key, tell in (("regularizers", _told_of_runs), ("distillation", _told_teacher)):
        if given := said.get(key):  # of a stage it may be one alone
            said[key] = [tell(one, folder) for one in (given if isinstance(given, list) else [given])]
    start = said.get("init_from")
    if (place := start.get("run") if isinstance(start, Mapping) else start) is not None:
        place = told_from(folder, place) if Path(place).exists() else place
        said["init_from"] = {**start, "run": place} if isinstance(start, Mapping) else place
    return said


def _told_of_runs(spec: Any, folder: Path) -> Any:
    places = {key: spec.get(key) for key in FROM_RUNS} if isinstance(spec, Mapping) else {}
    told = {key: told_from(folder, place) for key, place in places.items() if isinstance(place, str) and place}
    return {**spec, **told} if told else spec


def _told_teacher(one: Any, folder: Path) -> Any:
    if not isinstance(one, Mapping):
        return one
    places = {key: one[key] for key in ("teacher", "base") if isinstance(one.get(key), str) and Path(one[key]).exists()}
    return {**one, **{key: told_from(folder, place) for key, place in places.items()}}


def _recordable_task(item: str | dict[str, Any] | Task, folder: Path) -> str | dict[str, Any]:
    if isinstance(item, Task):
        return write_task_file(item, folder)
    return told_from(folder, item) if isinstance(item, str) and _is_task_file(item) else item


def _is_task_file(item: Any) -> bool:
    return isinstance(item, str) and Path(item).suffix in (".yaml", ".yml")


def told_from(folder: Path, path: str) -> str:
    """A path as it is told from a folder; one that begins at the root as it is."""
    return path if Path(path).is_absolute() else os.path.relpath(path, folder)


def find_files_again(heads: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Tasks with local files name them relative to their task file, which the run file knows and the model does not.

    Args:
        heads: task → head, of a run's model; their tasks are changed.
        said: what :func:`recorded` gave.
    """
    local = [
        head
        for head in heads.values()
        if any(
            one.dataset.path in LOCAL_FORMATS and not one.dataset.package
            for one in (inner_tasks(head.task) if head.task.dataset.path == TASKS else [head.task])
        )
    ]
    if not local or "tasks" not in said:
        return
    try:
        again = {task.name: task for task in load_tasks(said["tasks"], registry=said.get("registry", ()))}
    except ConfigError as error:
        logger.warning("the task files that run.yaml names can't be read again: %s", error)
        return
    for head in local:
        known = again.get(head.task.name)
        if known is not None and known.inner:
            head.task = head.task.with_(dataset=known.dataset.model_dump(exclude_unset=True))
            head.task.reading_texts_of(known.inner)
        elif known is not None and known.file:
            spec = head.task.dataset.model_copy(update={"data_files": known.dataset.data_files})
            head.task = head.task.model_copy(update={"file": known.file, "dataset": spec})


def recorded(folder: str | Path) -> dict[str, Any]:
    """The run file of a run folder, or of the one that a checkpoint lies in, with its paths told from here."""
    for place in (Path(folder), Path(folder).parent):
        if (place / "run.yaml").is_file():
            said = yamlfile.load(place / "run.yaml")[0] or {}
            break
    else:
        return {}
    said["tasks"] = [str(place / item) if _is_task_file(item) else item for item in said.get("tasks", [])]
    said["registry"] = [str(place / item) for item in said.get("registry", [])]
    if said.get("data_root"):
        said["data_root"] = str(place / said["data_root"])
    for spec in said.get("regularizers") or ():
        if isinstance(spec, dict):
            spec.update({key: str(place / spec[key]) for key in FROM_RUNS if isinstance(spec.get(key), str)})
    return said
