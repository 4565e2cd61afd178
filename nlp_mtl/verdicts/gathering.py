"""A verdict made from the runs that are done."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.studies.statistics import Interval, interval, relative_change
from nlp_mtl.verdicts.baselines import Baselines
from nlp_mtl.verdicts.judging import bootstrap, difference, holm, words
from nlp_mtl.verdicts.said import Cost, TaskVerdict, Verdicts
from nlp_mtl.verdicts.scored import Scored, scored_rows

_CONFIDENCE = 0.95


def verdicts(done: Baselines, split: str = "validation", *, data_root: str | Path | None = None) -> Verdicts:
    """Judge a run by its twins.

    Args:
        done: the runs.
        split: validation or test, with labels.
        data_root: see :func:`nlp_mtl.run.evaluate`.
    """
    plan = done.plan
    together: dict[int, tuple[Scored, Path]] = {}
    own = scored_rows(plan.run.folder, split, data_root=data_root)
    if own is not None:
        together[plan.run.seed] = (own, plan.run.folder)
    alone: dict[str, dict[int, tuple[Scored, Path]]] = {task: {} for task in plan.tasks}
    for outcome in done.outcomes:
        known = scored_rows(outcome.run.folder, split, data_root=data_root, only_known=True)
        if known is None:
            continue
        place = alone[outcome.run.task] if outcome.run.task else together
        place[outcome.run.seed] = (known, outcome.run.folder)
    trivial = _metrics(plan.run.folder)["trivial"] if split == "validation" else {}
    found = [
        one
        for task in plan.tasks
        if (one := _judged(task, plan.run.seed, together, alone[task], trivial.get(task, {}))) is not None
    ]
    adjusted = holm({one.task: one.found.p for one in found})
    judged = [
        replace(one, p=adjusted[one.task], said=words(one.found, adjusted[one.task], _CONFIDENCE)) for one in found
    ]
    return Verdicts(
        split,
        judged,
        plan.left_out,
        _delta(judged, together, alone),
        _cost([plan.run.folder]),
        _cost([by[plan.run.seed][1] for by in alone.values() if plan.run.seed in by])
        if all(plan.run.seed in by for by in alone.values())
        else None,
        plan.same,
        plan.seeds,
        done.failed,
        len(plan.missing),
    )


def _judged(
    task: str,
    seed: int,
    together: Mapping[int, tuple[Scored, Path]],
    alone: Mapping[int, tuple[Scored, Path]],
    trivial: Mapping[str, float],
) -> TaskVerdict | None:
    pairs = [
        (number, together[number][0], alone[number][0])
        for number in sorted(set(together) & set(alone))
        if task in together[number][0].tasks and task in alone[number][0].tasks
    ]
    pairs = [(number, a, b) for number, a, b in pairs if a.tasks[task].rows_key == b.tasks[task].rows_key]
    if not pairs:
        return None
    ours, theirs = [a.tasks[task] for _, a, _ in pairs], [b.tasks[task] for _, _, b in pairs]
    first = next((a for number, a, _ in pairs if number == seed), pairs[0][1]).tasks[task]
    found = difference(
        [one.row_score() for one in ours],
        [one.row_score() for one in theirs],
        better=first.better,
        confidence=_CONFIDENCE,
    )
    return TaskVerdict(
        task,
        first.metric,
        first.better,
        first.score,
        bootstrap(first.row_score(), confidence=_CONFIDENCE),
        float(np.mean([one.score for one in ours])),
        float(np.mean([one.score for one in theirs])),
        found,
        found.p,
        "",
        trivial.get(first.metric),
        _gap_of(task, [pair[1] for pair in pairs], first.better),
        _gap_of(task, [pair[2] for pair in pairs], first.better),
        tuple(pair[0] for pair in pairs),
    )


def _gap_of(task: str, runs: Sequence[Scored], better: bool) -> float:
    gaps = [seen - run.tasks[task].score for run in runs if (seen := run.train.get(task)) is not None]
    return (1 if better else -1) * float(np.mean(gaps)) if gaps else math.nan


def _delta(judged: Sequence[TaskVerdict], together: Mapping[int, Any], alone: Mapping[str, Any]) -> Interval | None:
    values = []
    for seed in sorted(together):
        if judged and all(seed in one.seeds for one in judged):
            scores = {one.task: together[seed][0].tasks[one.task].score for one in judged}
            reference = {one.task: alone[one.task][seed][0].tasks[one.task].score for one in judged}
            values.append(relative_change(scores, reference, {one.task: one.better for one in judged}))
    values = [value for value in values if not math.isnan(value)]
    return interval(values) if values else None


def _metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def _cost(folders: Sequence[Path]) -> Cost | None:
    said = [_metrics(folder) for folder in folders]
    if not said:
        return None
    peaks = [one["peak_memory_bytes"] for one in said if one.get("peak_memory_bytes")]
    rows = sum(
        int(value) for one in said for entry in one["log"] for key, value in entry.items() if key.startswith("rows_")
    )
    return Cost(
        sum(one["training_seconds"] for one in said),
        rows,
        max(peaks) if peaks else None,
        sum(one.get("trainable_parameters", 0) for one in said),
    )
