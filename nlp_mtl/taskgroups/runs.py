"""Run files for some of a run file's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import config, yamlfile
from nlp_mtl.atomic import write_text
from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.runfiles import beside
from nlp_mtl.taskfile import Task
from nlp_mtl.taskgroups.proposal import Grouping
from nlp_mtl.tasks import load_tasks

OF_SEVERAL = ("balancer", "sampler", "groups", "task_rates", "sharing", "tree", "stop_tasks")


def one_by_one(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Task → its entry in a run file's `tasks`; a tag's tasks have one each.

    Example:
        >>> one_by_one({"tasks": ["rte", {"name": "mrpc", "rows": {"train": 50}}]})
        {'rte': 'rte', 'mrpc': {'name': 'mrpc', 'rows': {'train': 50}}}
    """
    found: dict[str, Any] = {}
    given = keys["tasks"] if isinstance(keys["tasks"], list) else [keys["tasks"]]
    for item in given:
        names = [task.name for task in load_tasks([item], registry=keys.get("registry") or ())]
        for name in names:
            if len(names) == 1:
                found[name] = item
            else:
                found[name] = {**item, "name": name} if isinstance(item, Mapping) else name
    return found


def with_tasks(keys: Mapping[str, Any], items: Mapping[str, Any], members: Sequence[str]) -> dict[str, Any]:
    """A run file with some of its tasks; what it says of the others, or of several tasks where one is left, goes.

    Args:
        keys: the run file's.
        items: as :func:`one_by_one` gives them.
        members: the tasks that stay.

    Example:
        >>> keys = {"model": "m", "tasks": ["rte", "mrpc"], "balancer": "pcgrad", "task_rates": {"rte": 2.0}}
        >>> with_tasks(keys, one_by_one(keys), ["mrpc"])
        {'model': 'm', 'tasks': ['mrpc']}
    """
    found = {**keys, "tasks": [items[name] for name in members]}
    if len(members) == 1:
        found = {key: value for key, value in found.items() if key not in OF_SEVERAL}
    tags = {tag for item in found["tasks"] for task in _tasks(item, keys) for tag in task.tags}
    known = {"*", *members, *tags}
    for key in ("heads", "task_rates"):
        if isinstance(found.get(key), Mapping):
            found[key] = {name: said for name, said in found[key].items() if name in known}
    if found.get("train_tasks"):
        named = found["train_tasks"] if isinstance(found["train_tasks"], list) else [found["train_tasks"]]
        found["train_tasks"] = [name for name in named if name in members]
    for key in ("groups", "tree"):
        inner = found.get(key)
        if isinstance(inner, Mapping) and isinstance(inner.get("groups"), Mapping):
            left = {name: [one for one in some if one in members] for name, some in inner["groups"].items()}
            found[key] = {**inner, "groups": {name: some for name, some in left.items() if some}}
    return {key: value for key, value in found.items() if value not in ([], {}) or key == "tasks"}


def _tasks(item: Any, keys: Mapping[str, Any]) -> list[Task]:
    return load_tasks([item], registry=keys.get("registry") or ())


def group_runs(grouping: Grouping, run: str | Path | Mapping[str, Any]) -> list[dict[str, Any]]:
    """The run file of each group: a base run file with the group's tasks, and a folder of its own.

    Args:
        grouping: from :func:`nlp_mtl.taskgroups.proposal.propose_groups`.
        run: the base run file, or its keys; its tasks are those of the grouping, in whatever form it names them.

    Raises:
        ConfigError: every mistake of the run file; tasks that it has not; a group that it can't be cut down to.
    """
    if isinstance(run, Mapping):
        keys, place = dict(run), "the run"
    else:
        config.load_config(run)
        keys, place = beside(yamlfile.load(run)[0], Path(run).parent), str(run)
    if keys.get("stages"):
        raise ConfigError(f"{place}: a run file without `stages` is cut into groups, found `stages`; leave them out")
    items = one_by_one(keys)
    unknown = [task for task in grouping.gains if task not in items]
    if unknown:
        raise ConfigError(
            [
                f"{place}: `tasks` has all tasks of the affinity, found no {task!r}{suggestion(task, items)}"
                for task in unknown
            ]
        )
    training = keys.get("training") or {}
    base = training.get("output_dir") or f"runs/{Path(place).stem if place != 'the run' else 'groups'}"
    made, mistakes = [], []
    for number, group in enumerate(grouping.groups, 1):
        said = with_tasks(
            {**keys, "training": {**training, "output_dir": f"{base}/group-{number}"}}, items, group.tasks
        )
        try:
            config.load_config(said)
        except ConfigError as error:
            mistakes += [f"{place}: group {number} ({', '.join(group.tasks)}): {one}" for one in error.mistakes]
        made.append(said)
    if mistakes:
        raise ConfigError(mistakes)
    return made


def write_runs(grouping: Grouping, runs: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write ``group-1.yaml``, …; each begins with its command and whom it serves."""
    files = []
    for number, (group, run) in enumerate(zip(grouping.groups, runs, strict=True), 1):
        file = folder / f"group-{number}.yaml"
        helped = f"; {', '.join(group.helpers)} only help" if group.helpers else ""
        head = f"# nlp-mtl train {file}     the model of {', '.join(group.serves)}{helped}\n"
        write_text(file, head + yamlfile.dumps(told_from(run, folder)))
        files.append(file)
    return files


def told_from(keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A run file for a folder: paths of what is there are told from the root, so that it can be read from anywhere."""

    def whole(value: Any) -> Any:
        found = isinstance(value, str) and bool(value) and not Path(value).is_absolute() and Path(value).exists()
        return str(Path(value).resolve()) if found else value

    said = dict(keys)
    for key in ("model", "data_root"):
        if key in said:
            said[key] = whole(said[key])
    if isinstance(said.get("init_from"), Mapping):
        said["init_from"] = {**said["init_from"], "run": whole(said["init_from"].get("run"))}
    elif "init_from" in said:
        said["init_from"] = whole(said["init_from"])
    if said.get("registry"):
        named = said["registry"] if isinstance(said["registry"], list) else [said["registry"]]
        said["registry"] = [whole(one) for one in named]
    if "tasks" in said:
        said["tasks"] = [_told_task(item, whole) for item in said["tasks"]]
    if said.get("stages"):
        said["stages"] = [told_from(stage, folder) for stage in said["stages"]]
    return said


def _told_task(item: Any, whole: Any) -> Any:
    if isinstance(item, Mapping):
        return {**item, "name": _told_task(item.get("name"), whole)}
    return whole(item) if isinstance(item, str) and item.endswith((".yaml", ".yml")) else item
