"""The stages of a run file: what each one's own run file would say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.errors import ConfigError
from nlp_mtl.initfrom import InitFrom

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: from the run file, or ``stage-2``.
        folder: below the run's folder, ``2-name``.
        each: whether every task is trained by itself, in a folder of its name below that.
        keys: a run file's, without `training.output_dir` and what starts from an earlier stage.
        after: the number of the stage that it starts from, from 0; None for the pretrained model or `init_from`.
        start: what `init_from` says beside that stage: whose encoder, which heads, `merge`.
    """

    name: str
    folder: str
    each: bool
    keys: Mapping[str, Any]
    after: int | None
    start: Mapping[str, Any] = field(default_factory=dict)


def stages_of(keys: Mapping[str, Any]) -> list[Stage]:
    """The stages of a run file.

    A stage says keys of a run file; what it does not say, the whole run says. Of `training` it says single fields. It
    starts from the stage before, or as its `init_from` says: the name of an earlier stage, a folder, or null for the
    pretrained model; with `{merge: true}`, or more of what `init_from` takes beside `run`, from the stage before in
    that way. `each: true` trains every task by itself, and is for the last stage. The whole run's
    `reinit_top_layers`, like its `init_from`, is for stages that start from no earlier one.

    Args:
        keys: a run file's, with `stages`.

    Raises:
        ConfigError: every mistake that is no other run file's too.

    Example:
        >>> keys = {"model": "m", "tasks": ["a", "b"], "training": {"learning_rate": 1e-4}}
        >>> first, last = stages_of({**keys, "stages": [{}, {"name": "alone", "each": True, "training": {"seed": 1}}]})
        >>> first.folder, last.folder, last.after, last.keys["training"]
        ('1-stage-1', '2-alone', 0, {'learning_rate': 0.0001, 'seed': 1})
    """
    given, whole = keys.get("stages") or [], {key: value for key, value in keys.items() if key != "stages"}
    found: list[Stage] = []
    mistakes: list[str] = []
    for number, said in enumerate(given):
        where = f"stages: stage {number + 1}"
        if not isinstance(said, Mapping):
            mistakes.append(f"{where} is a mapping of a run file's keys, found {said!r}; write {{tasks: [rte]}}")
            continue
        name, each = said.get("name", f"stage-{number + 1}"), said.get("each", False)
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in [stage.name for stage in found]:
            mistakes.append(
                f"{where}: `name` names a folder, and no other stage, found {name!r}; use letters, digits, - and _"
            )
            name = f"stage-{number + 1}"
        if not isinstance(each, bool):
            mistakes.append(f"{where}: `each` is true or false, found {each!r}; true trains every task by itself")
        elif each and number + 1 < len(given):
            mistakes.append(f"{where}: `each: true` gives a model per task, so it is for the last stage; move it there")
        training = said.get("training", {})
        own = {key: value for key, value in said.items() if key not in ("name", "each")}
        if "stages" in own:
            mistakes.append(f"{where}: a stage has no stages of its own, found `stages`; write them after it")
        if isinstance(training, Mapping):
            if "output_dir" in training:
                mistakes.append(f"{where}: `training.output_dir` is the whole run's; leave it out")
            own["training"] = {**(whole.get("training") or {}), **training}
        after: int | None = number - 1 if number else None
        start: dict[str, Any] = {}
        if "init_from" in own:
            said_from = own["init_from"]
            if isinstance(said_from, Mapping):
                start = {key: value for key, value in said_from.items() if key != "run"}
                said_from = said_from.get("run", found[-1].name if found else None)
            after = next((n for n, stage in enumerate(found) if stage.name == said_from), None)
            if after is not None:
                own["init_from"] = None
                try:
                    InitFrom.of({**start, "run": str(said_from)})
                except ConfigError as error:
                    mistakes += [f"{where}: {message}" for message in error.mistakes]
        merged = {**whole, **own}
        if after is not None:
            merged.pop("init_from", None)
            if "reinit_top_layers" not in own:  # it would wipe out what the earlier stage learned
                merged.pop("reinit_top_layers", None)
        found.append(Stage(name, f"{number + 1}-{name}", bool(each), merged, after, {} if after is None else start))
    if mistakes:
        raise ConfigError(mistakes)
    return found


def tasks_of_all(stages: Sequence[Any]) -> list[Any]:
    """The tasks that stages name, each once, in their order."""
    found: list[Any] = []
    for stage in stages:
        named = stage.get("tasks", []) if isinstance(stage, Mapping) else []
        found += [task for task in (named if isinstance(named, list) else [named]) if task not in found]
    return found
