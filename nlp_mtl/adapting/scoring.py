"""What merging cost: each task's scores with the merged adapter, with its own, and in a run trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl.errors import DataError, NotFoundError
from nlp_mtl.evaluation import TaskScores
from nlp_mtl.pulling import local_folder
from nlp_mtl.run import evaluate
from nlp_mtl.runspec import read_spec
from nlp_mtl.taskfile import Split


def merged_and_others(
    merged: str | Path,
    separate: str | Path,
    joint: str | Path | None = None,
    *,
    split: Split = "validation",
    data_root: str | Path | None = None,
    base: str | Path | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Scores of the merged run's tasks beside those of the runs it can be compared with.

    Args:
        merged: the run with the merged adapter.
        separate: the run with one adapter per task.
        joint: a run in which these tasks were trained on one adapter, or fully.
        split: on which rows.
        data_root: where data sets are looked for first; default that of each run.
        base: see :meth:`MultiTaskModel.from_pretrained`.

    Returns:
        One row per task and metric: task, metric, merged, separate, joint (None where that run has no score), rows;
        and for each task whose data is not there, why.
    """
    folders = {"merged": merged, "separate": separate, **({} if joint is None else {"joint": joint})}
    tasks = [item["name"] for item in read_spec(merged)["tasks"]]
    found: dict[str, dict[str, TaskScores]] = {}
    reasons: dict[str, str] = {}
    for name, folder in folders.items():
        place = local_folder(folder)
        known = {item["name"] for item in read_spec(place)["tasks"]}
        wanted = [task for task in tasks if task in known and task not in reasons]
        found[name], missing = _scores(place, wanted, split, data_root, base)
        reasons |= missing
    rows = []
    for task, scores in found["merged"].items():
        for metric, value in scores.metrics.items():
            others = {name: _metric(found.get(name, {}), task, metric) for name in ("separate", "joint")}
            rows.append({"task": task, "metric": metric, "merged": value, **others, "rows": scores.rows})
    return rows, [f"{task}: no scores, its data is not at hand ({why})" for task, why in reasons.items()]


def _metric(scores: Mapping[str, TaskScores], task: str, metric: str) -> float | None:
    return scores[task].metrics.get(metric) if task in scores else None


def _scores(
    run: Path, tasks: Sequence[str], split: Split, data_root: str | Path | None, base: str | Path | None
) -> tuple[dict[str, TaskScores], dict[str, str]]:
    """Scores by task, and for each task without data the first line of why."""
    if not tasks:
        return {}, {}
    try:
        return evaluate(run, split, tasks=tasks, data_root=data_root, base=base), {}
    except (NotFoundError, DataError) as error:
        if len(tasks) == 1:
            return {}, {tasks[0]: str(error).splitlines()[0].rstrip(".")}
    found: dict[str, TaskScores] = {}
    missing: dict[str, str] = {}
    for task in tasks:
        scores, reasons = _scores(run, [task], split, data_root, base)
        found, missing = found | scores, missing | reasons
    return found, missing
