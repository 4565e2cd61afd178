"""A search file, read and checked: the tasks, their rows in halves, and what is varied."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl import config
from nlp_mtl.affinity import Affinity
from nlp_mtl.errors import ConfigError, DataError, NotFoundError, RunFolderError, suggestion
from nlp_mtl.heads import make_heads
from nlp_mtl.metrics import greater_is_better
from nlp_mtl.searching.pruning import read_pruning
from nlp_mtl.searching.space import Space, Values, check_values, read_space
from nlp_mtl.searching.spec import AFFINITY, OWN, SearchFile
from nlp_mtl.sources import load_rows
from nlp_mtl.studies.files import read_study
from nlp_mtl.taskfile import Task
from nlp_mtl.taskgroups.runs import one_by_one
from nlp_mtl.tasks import load_tasks

logger = logging.getLogger("nlp_mtl")
HALF = {"of": "validation", "share": 0.5}


@dataclass(frozen=True)
class Plan:
    """What a search does.

    Attributes:
        file: its keys.
        keys: of the run file that is varied.
        space: what is varied.
        items: task → its entry in a run file's `tasks`.
        halved: the same, where it is judged with half of the validation rows as test rows.
        rows: task → training rows.
        first: task → its first metric, and whether more of it is better.
        judged: the tasks whose scores count.
        left_out: candidates without data, and why.
        memo: what takes long, worked out once.
    """

    file: SearchFile
    keys: dict[str, Any]
    space: Space
    items: dict[str, Any]
    halved: dict[str, Any]
    rows: dict[str, int]
    first: dict[str, tuple[str, bool]]
    judged: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return Path(self.file.output_dir)

    @property
    def target(self) -> str | None:
        """The one task that counts, if it is one."""
        return self.file.target

    @property
    def helpers(self) -> tuple[str, ...]:
        """Tasks that may help the target."""
        return tuple(task for task in self.items if task != self.target) if self.target else ()

    @property
    def best_by(self) -> str | None:
        """The metric that decides a training's best step, where only the target counts."""
        return f"{self.target}_{self.first[self.target][0]}" if self.target else None

    @property
    def needs_affinity(self) -> bool:
        """Whether it asks how tasks help one another."""
        grouping = self.space.get("grouping")
        asked = isinstance(grouping, Values) and AFFINITY in [one for one in grouping.values if isinstance(one, str)]
        return bool(self.helpers) or asked or isinstance(self.file.affinity, str)

    def score(self, scores: Mapping[str, float]) -> float:
        """The mean of the first metrics of the tasks that count; where less is better, of minus the metric."""
        return sum(scores[task] if self.first[task][1] else -scores[task] for task in self.judged) / len(self.judged)


def load_search(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Plan:
    """A search file, checked, with the rows of its tasks counted.

    Args:
        source, overrides: as for :func:`read_search`.

    Raises:
        ConfigError: every mistake of the file, and of the run files it makes.
        DataError: rows that can't be used.
        NotFoundError: data that is nowhere.
    """
    return _with_rows(*read_search(source, overrides))


def read_search(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> tuple[SearchFile, dict[str, Any], Space, dict[str, Any]]:
    """A search file, checked as far as that needs no data.

    Args:
        source: the YAML file, or a mapping of its keys.
        overrides: ``key=value`` for keys of the run file, in all trials; those of
            :data:`nlp_mtl.searching.spec.OWN` are the search's.

    Returns:
        Its keys; those of the run file that is varied; what is varied; and task → its entry in `tasks`.

    Raises:
        ConfigError: every mistake of the file, and of the run files it makes.
    """
    read = read_study(SearchFile, source, overrides, OWN)
    file, place, mistakes = read.study, read.place, []
    given = dict(read.keys)
    if file.target is not None and "tasks" not in given:
        given["tasks"] = [file.target]
    keys: dict[str, Any] = {}
    items: dict[str, Any] = {}
    try:
        keys = config.load_config(given, read.rest).model_dump(exclude_unset=True)
        items = one_by_one(keys)
    except ConfigError as error:
        mistakes += [f"{place}: `run`: {one.removeprefix('the run: ')}" for one in error.mistakes]
    if keys.get("stages"):
        mistakes.append(f"{place}: `run` has no `stages`, which `strategy` makes; leave them out")
    mistakes += [f"{place}: {one}" for one in _target_mistakes(file, items)] if keys else []
    if file.candidates and file.target:
        try:
            items = {**one_by_one({"tasks": file.candidates, "registry": keys.get("registry") or ()}), **items}
        except ConfigError as error:
            mistakes += [f"{place}: `candidates`: {one}" for one in error.mistakes]
    try:
        read_pruning(file.pruning)
    except ConfigError as error:
        mistakes += [f"{place}: {one}" for one in error.mistakes]
    space, wrong = read_space(file.space, list(items), file.encoders, file.target)
    mistakes += [f"{place}: {one}" for one in [*wrong, *(check_values(space, keys) if keys else ())]]
    if not file.space and not file.target:
        mistakes.append(f"{place}: a search varies something, found an empty `space` and no `target`; say one of them")
    if isinstance(file.affinity, str) and not Path(file.affinity).is_file():
        mistakes.append(
            f"{place}: `affinity` is a file of nlp_mtl.affinity, or steps to measure it, found {file.affinity!r}"
        )
    if mistakes:
        raise ConfigError(mistakes)
    return file, keys, space, items


def _affinity_mistakes(file: str, tasks: list[str], target: str | None) -> list[str]:
    """What a search can't use of a file of affinities; it wants each task to each other, or to the target."""
    try:
        found = Affinity.load(file).of(tasks)
    except RunFolderError as error:
        return [str(error)]
    except ConfigError as error:
        return [f"{file}: {one}; measure it for all of the search's tasks" for one in error.mistakes]
    many = range(len(tasks))
    unknown = [
        f"{tasks[i]} → {tasks[j]}"
        for i in many
        for j in many
        if i != j and target in (None, tasks[j]) and not np.isfinite(found.values[i, j])
    ]
    return [f"{file}: no value for {', '.join(unknown[:5])}; measure those, or leave the tasks out"] if unknown else []


def _target_mistakes(file: SearchFile, items: Mapping[str, Any]) -> list[str]:
    if file.target is None:
        return ["`candidates` may help a `target`, found none; name it"] if file.candidates else []
    found = []
    if file.target not in items:
        found.append(f"`target` is one of the run's tasks, found {file.target!r}{suggestion(file.target, items)}")
    if not file.candidates and len(items) < 2:
        found.append("`candidates` are tasks that may help the target, found none; e.g. [mrpc, stsb], or a tag")
    return found


def _with_rows(file: SearchFile, keys: dict[str, Any], space: Space, items: Mapping[str, Any]) -> Plan:
    registry = keys.get("registry") or ()
    tasks = {name: load_tasks([item], registry=registry)[0] for name, item in items.items()}
    heads = make_heads(list(tasks.values()))
    first = {name: (head.metrics[0], greater_is_better(head.metrics[0])) for name, head in heads.items()}
    judged = (file.target,) if file.target else tuple(items)
    # helpers are not judged, so their validation rows are left as they are
    halved = {name: with_half(items[name], task) if name in judged else items[name] for name, task in tasks.items()}
    rows, left_out, mistakes = {}, {}, []
    for name in items:
        try:
            found = load_rows(load_tasks([halved[name]], registry=registry)[0], data_root=keys.get("data_root"))
        except (NotFoundError, DataError) as error:
            if name in judged:
                raise
            left_out[name] = str(error).splitlines()[0]
            continue
        if "train" not in found:
            left_out[name] = "it has no training rows"
            if name in judged:
                mistakes.append(f"the search: task {name!r} has no training rows; leave it out")
            continue
        rows[name] = len(found["train"])
    for name, why in left_out.items():
        logger.warning("%s is no candidate: %s", name, why)
    if isinstance(file.affinity, str):
        known = [name for name in items if name in rows]
        mistakes += [f"the search: `affinity`: {one}" for one in _affinity_mistakes(file.affinity, known, file.target)]
    if file.target and len(rows) < 2:
        mistakes.append("the search: no candidate has data; name others, or say where data is (`run.data_root`)")
    if mistakes:
        raise ConfigError(mistakes)
    kept = {name: items[name] for name in items if name in rows}
    return Plan(file, keys, space, kept, {name: halved[name] for name in kept}, rows, first, judged, left_out)


def with_half(item: Any, task: Task) -> Any:
    """A task's entry with half of its validation rows, drawn by a hash of the inputs, as test rows.

    Relations: what a search selects by is optimistic; the other half says what it found is worth. The data's own test
    rows are not touched.
    """
    splits: dict[Any, Any] = {**{split: said for split, said in task.splits.items() if split != "test"}, "test": HALF}
    rows: dict[Any, int] = {split: count for split, count in task.rows.items() if split != "test"}
    if "validation" in rows:
        rows["test"] = rows["validation"]
    if isinstance(item, Task):
        return item.with_(splits=splits, rows=rows)
    said = dict(item) if isinstance(item, Mapping) else {"name": item}
    plain = {split: one.model_dump() if hasattr(one, "model_dump") else one for split, one in splits.items()}
    return {**said, "splits": plain, **({"rows": rows} if rows else {})}
