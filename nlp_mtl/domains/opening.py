"""The encoders that domains are looked at with: a pretrained one, and that of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint
from nlp_mtl.bases import find_recorded
from nlp_mtl.errors import ConfigError, HubError, NotFoundError, RunFolderError
from nlp_mtl.initial import model_from, source_folder
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import beside
from nlp_mtl.pulling import local_folder
from nlp_mtl.recording import recorded
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import load_tasks

logger = logging.getLogger("nlp_mtl")


@dataclass
class Opened:
    """What domains are looked at with.

    Attributes:
        encoders: ``pretrained`` and ``run``, those that are there; each a model of all the tasks, the source first.
        run: the run's own model; None for a pretrained folder.
        folder: where that is.
        data_root: where data sets are looked for first.
        base: where the pretrained model is, as far as it is known.
        notes: what is missing and why.
    """

    encoders: dict[str, MultiTaskModel] = field(default_factory=dict)
    run: MultiTaskModel | None = None
    folder: Path = Path()
    data_root: Any = None
    base: Any = None
    notes: list[str] = field(default_factory=list)


def open_encoders(
    start: str | Path,
    names: Sequence[str],
    *,
    registry: Sequence[str | Path] = (),
    base: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Opened:
    """Open what `start` names, with heads for tasks.

    Args:
        start: a run folder or its Hub id, or a pretrained model.
        names: tasks, the source first; the run's own tasks, else those of the registry, or task files.
        registry, base, data_root: see :func:`nlp_mtl.domains.look.compare_domains`.

    Raises:
        ConfigError: unknown tasks, one name that means several.
        NotFoundError, RunFolderError, HubError, UnsupportedError: what can't be opened.
    """
    holds = Path(start).is_dir() and checkpoint.holds_run(start)
    folder = local_folder(start) if holds else source_folder(str(start))
    is_run = (folder / checkpoint.SPEC).is_file()
    said = recorded(folder) if is_run else {}
    known = {}
    if said.get("tasks"):
        known = {task.name: task for task in load_tasks(said["tasks"], registry=said.get("registry", ()))}
    tasks = [task.with_(head_of=None) for task in _tasks(names, known, [*said.get("registry", ()), *registry])]
    how: dict[str, Any] = {"data_root": data_root or said.get("data_root")}
    opened = Opened(folder=folder, data_root=how["data_root"])
    if not is_run:
        opened.encoders["pretrained"] = MultiTaskModel.from_base(folder, tasks, **how).eval()
        return opened
    run = opened.run = MultiTaskModel.from_pretrained(folder, base=base)
    how["max_length"] = run.max_length
    try:
        opened.base = base or beside(folder, run.base) or find_recorded(run.base).folder
        opened.encoders["pretrained"] = MultiTaskModel.from_base(opened.base, tasks, **how).eval()
    except (NotFoundError, HubError, RunFolderError) as error:
        logger.debug("domains: %s", error)
        opened.notes.append(
            f"the pretrained model {run.base['id']!r} is not at hand, so only the run is looked at; --base says "
            "where it is"
        )
    opened.encoders["run"] = _of_run(opened, tasks[0].name, tasks, how)
    return opened


def zero_shot_model(opened: Opened, source: str, tasks: Sequence[Task]) -> MultiTaskModel:
    """The run's encoder as the source uses it, with the source's head for all tasks.

    Args:
        opened: what :func:`open_encoders` gave, of a run that has the source.
        source: the task whose head it is.
        tasks: with the same kind of head and labels.
    """
    assert opened.run is not None
    owner = opened.run.heads[source]
    lent = []
    for task in tasks:
        changes: dict[str, Any] = {"labels": owner.labels} if owner.by_labels and owner.labels else {}
        changes |= {"head": owner.spec, "head_of": None if task.name == source else source}
        lent.append(task.with_(**changes))
    if source not in [task.name for task in tasks]:
        lent.insert(0, owner.task.with_(head=owner.spec, head_of=None))
    how = {"data_root": opened.data_root, "max_length": opened.run.max_length}
    given = {"run": str(opened.folder), "task": source, "heads": {source: source}}
    return model_from(given, str(opened.base or opened.run.base["id"]), lent, **how)


def _of_run(opened: Opened, source: str, tasks: Sequence[Task], how: dict[str, Any]) -> MultiTaskModel:
    """The run's encoder, as the source uses it or, if the run does not know it, its first task."""
    assert opened.run is not None
    whose = source if source in opened.run.heads else opened.run.tasks[0]
    given = {"run": str(opened.folder), "task": whose}
    return model_from(given, str(opened.base or opened.run.base["id"]), list(tasks), **how).eval()


def _tasks(names: Sequence[str], known: dict[str, Task], registry: Sequence[str | Path]) -> list[Task]:
    found, mistakes = [], []
    for name in names:
        if name in known:
            found.append(known[name])
            continue
        try:
            meant = load_tasks({"name": str(name), "head_of": None}, registry=registry)
        except ConfigError as error:
            mistakes += error.mistakes
            continue
        if len(meant) != 1:
            mistakes.append(f"domains: names single tasks, found {name!r}, which is {len(meant)}; name them one by one")
        found += meant
    if mistakes:
        raise ConfigError(mistakes)
    return found
