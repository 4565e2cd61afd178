"""Which run answers which part of a suite, on the owners' rows whatever the run trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.errors import ConfigError, DataError, NotFoundError
from nlp_mtl.evaluation import TaskScores
from nlp_mtl.pulling import local_folder
from nlp_mtl.run import evaluate
from nlp_mtl.runspec import read_spec
from nlp_mtl.suites.tables import Part, Suite
from nlp_mtl.taskfile import Split, Task
from nlp_mtl.tasks import load_tasks


@dataclass
class Answers:
    """What runs said of a suite.

    Attributes:
        found: part → its scores (and predictions).
        tasks: part → the task whose rows they are.
        by: part → the run that answered.
        notes: what was passed over, and why.
    """

    found: dict[str, TaskScores] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    by: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """A part that a run can answer: by which task of it, on which rows."""

    part: Part
    task: Task


def answers(
    runs: Sequence[str | Path],
    suite: Suite,
    split: Split = "validation",
    *,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Answers:
    """Every part of a suite answered by the first run that can.

    A task counts as the suite's where its name, data set, inputs and labels are the registered one's; its rows are then
    the owners', also where the run was trained on fewer. MNLI-mm and the diagnostic sets are answered by the task whose
    head they use.

    Args:
        runs: run folders; each may answer some tasks.
        suite: the suite.
        split: validation, or test for a submission.
        data_root, base: see :func:`nlp_mtl.run.evaluate`.
        progress: show a bar.

    Raises:
        ConfigError: no run at all; no run has a task of the suite.
    """
    if not runs:
        raise ConfigError(f"--suite {suite.name}: one run folder or more, found none; name those that have its tasks")
    result = Answers()
    for run in runs:
        folder = local_folder(run)
        asked = _asked(folder, suite, split, result)
        first = {one.task.name: one for one in asked if one.part.owner is None or one.part.task == one.task.name}
        if first:
            told = [one.task for one in first.values()]
            found = evaluate(
                folder, split, tasks=told, data_root=data_root, base=base, predictions=True, progress=progress
            )
            for name, one in first.items():
                if name in found:
                    _keep(result, one, found[name], folder)
                else:
                    result.notes.append(
                        f"{one.part.file}: {folder} has its task, but the data here has no {split} rows"
                    )
        for one in asked:
            if one in first.values():
                continue
            try:
                found = evaluate(folder, split, tasks=[one.task], data_root=data_root, base=base, predictions=True)
            except (NotFoundError, DataError) as error:
                why = str(error).splitlines()[0].removesuffix(" Tried, in order:").removesuffix(".")
                result.notes.append(f"{one.part.file}: the head of {one.task.name} could answer it, but {why}")
                continue
            if one.task.name in found:
                _keep(result, one, found[one.task.name], folder)
    if not result.found:
        answer = dict.fromkeys(part.owner or part.task for part in suite.parts)
        raise ConfigError(
            [
                f"--suite {suite.name}: a run with a task of {suite.title} that has rows in {split}, found none in "
                f"{', '.join(map(str, runs))}; tasks that answer it are {', '.join(answer)}",
                *result.notes,
            ]
        )
    return result


def _keep(result: Answers, one: Asked, found: TaskScores, folder: Path) -> None:
    result.found[one.part.task], result.by[one.part.task] = found, folder
    result.tasks[one.part.task] = one.task


def _asked(folder: Path, suite: Suite, split: Split, result: Answers) -> list[Asked]:
    """What a run can answer, and no run before it did."""
    has = {item["name"]: item for item in read_spec(folder)["tasks"]}
    asked = []
    for part in suite.parts:
        name = part.task if part.task in has else part.owner
        if name is None or name not in has:
            continue
        if part.task in result.found:
            result.notes.append(
                f"{part.file}: {result.by[part.task]} answers it; {folder} has it too, and is not asked"
            )
            continue
        ours = registered(part) if name == part.task else load_tasks([name])[0]
        if differing := _differing(has[name], ours):
            result.notes.append(f"{part.file}: the task {name!r} of {folder} is another one: {differing}")
            continue
        rows = rows_of(part, ours, split)
        if rows is not None:
            asked.append(Asked(part, rows))
    return asked


def _differing(item: Mapping[str, Any], ours: Task) -> str:
    theirs = Task(**{key: item[key] for key in ("name", "head", "dataset", "inputs") if key in item})
    told = {
        "data set": (theirs.dataset.path, ours.dataset.path),
        "configuration": (theirs.dataset.name, ours.dataset.name),
        "inputs": (theirs.inputs, ours.inputs),
        "labels": (sorted(item.get("labels") or []), sorted(ours.labels or [])),
    }
    found = [f"its {what} is {shown!r}, not {known!r}" for what, (shown, known) in told.items() if shown != known]
    return ", ".join(found)


def registered(part: Part) -> Task:
    """The registered task of a part."""
    return load_tasks([*([part.owner] if part.owner else []), part.task])[-1]


def rows_of(part: Part, ours: Task, split: Split) -> Task | None:
    """The registered task of a run, with the rows of a part; None where the part has no such split.

    Args:
        part: the part.
        ours: the registered task that the run has: the part's own, or its owner.
        split: the split wanted.
    """
    theirs = ours if ours.name == part.task else registered(part)
    if split in theirs.splits and theirs.splits[split] is None:
        return None
    other = ours.name != part.task or part.dataset is not None
    if not other:
        return ours
    if part.dataset is not None and split != "test":
        return ours  # the same validation rows in both benchmarks
    prepare = [] if part.dataset is not None else list(theirs.prepare)
    if part.rename:
        prepare = [*prepare, {"name": "rename", "columns": dict(part.rename)}]
    dataset = dict(part.dataset) if part.dataset else theirs.dataset.model_dump(exclude_unset=True)
    splits: dict[Split, Any] = dict(theirs.splits)
    return ours.with_(dataset=dataset, splits=splits, prepare=prepare, rows={})
