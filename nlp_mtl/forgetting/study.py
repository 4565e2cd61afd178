"""Ways of learning tasks one after the other, compared over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.atomic import write_text
from nlp_mtl.checkpoint import stage_folders
from nlp_mtl.errors import ConfigError
from nlp_mtl.forgetting.matrix import MEASURES, Course, mean_matrix
from nlp_mtl.forgetting.plan import load_continual
from nlp_mtl.studies.running import Outcome, run_missing
from nlp_mtl.studies.statistics import Interval, interval

FORMAT = 1


@dataclass
class Continual:
    """What a study of continual learning found.

    Attributes:
        tasks: in the order they were learned.
        metrics: task → its first metric.
        courses: way → a :class:`Course` for each seed.
        confidence: of the intervals.
        failed: runs that failed, and why.
        stopped: whether runs are missing because it was stopped.
        folder: where it is written.
    """

    tasks: list[str]
    metrics: dict[str, str]
    courses: dict[str, list[Course]]
    confidence: float
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    folder: Path = Path()

    def measure(self, way: str, name: str) -> Interval | None:
        """An interval of average, backward, forgetting or forward over seeds; None where it is not defined."""
        values = [getattr(course, name) for course in self.courses[way]]
        return None if any(map(math.isnan, values)) else interval(values, self.confidence)

    def table(self) -> list[dict[str, str]]:
        """A row for each way, as text: what the tasks score at the end, and the measures."""
        rows = []
        for way, courses in self.courses.items():
            row = {"method": way}
            for number, task in enumerate(self.tasks):
                row[task] = str(interval([course.scores[-1, number] for course in courses], self.confidence))
            row |= {name: str(found) if (found := self.measure(way, name)) else "—" for name in MEASURES}
            rows.append(row)
        return rows

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``continual.json``."""
        ways: dict[str, Any] = {}
        for way, courses in self.courses.items():
            found = {name: self.measure(way, name) for name in MEASURES}
            ways[way] = {
                "matrices": [np.round(course.scores, 6).tolist() for course in courses],
                "mean_matrix": np.round(mean_matrix(courses), 6).tolist(),
                **{
                    name: None
                    if one is None
                    else {"mean": one.mean, "half": None if math.isnan(one.half) else one.half}
                    for name, one in found.items()
                },
            }
        said = {"format": FORMAT, "tasks": self.tasks, "metrics": self.metrics, "confidence": self.confidence}
        return {**said, "methods": ways, "failed": self.failed, "stopped": self.stopped}

    def markdown(self) -> str:
        """The table, what its columns mean, and each way's matrix."""
        rows = self.table()
        lines = _lines(list(rows[0]), [list(row.values()) for row in rows])
        metrics = ", ".join(f"{task}: {metric}" for task, metric in self.metrics.items())
        lines += [
            "",
            f"Tasks were learned in this order; scores are of the validation rows after the last one ({metrics}). "
            "backward: at the end minus after its own stage. forgetting: its best before minus at the end. forward: "
            "before its own stage minus the trivial baseline.",
        ]
        for way, courses in self.courses.items():
            matrix = mean_matrix(courses)
            names = self.tasks if len(matrix) == len(self.tasks) else ["all"]
            parts = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(names, matrix, strict=True)]
            lines += ["", f"{way}, after learning:", "", *_lines(["", *self.tasks], parts)]
        return "\n".join([*lines, *(f"\n{what}: {why}" for what, why in self.failed.items()), ""])


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def continual(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Continual:
    """Do what is missing of a study of continual learning, and compare.

    ``continual.json``, ``continual.md`` and ``continual.svg`` are written into its `output_dir`.

    Args:
        source: a study file, or a mapping of its keys; see :class:`nlp_mtl.forgetting.plan.ContinualStudy`.
        overrides: ``key=value``.

    Raises:
        ConfigError: mistakes in the study or its runs, all at once; no run came to an end.
        RunFolderError: a folder of the study holds another run.

    Relations: the score matrix and backward and forward transfer are of Lopez-Paz and Ranzato (2017, arXiv 1706.08840),
    forgetting of Chaudhry et al. (2018, arXiv 1801.10112); forward transfer counts from the trivial baseline here, not
    from a model of random weights.
    """
    study, tasks, runs = load_continual(source, overrides)
    outcomes, stopped = run_missing(runs)
    found = courses_of(outcomes, tasks, study.confidence)
    found.stopped, found.folder = stopped, Path(study.output_dir)
    write_text(found.folder / "continual.json", json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(found.folder / "continual.md", found.markdown())
    from nlp_mtl.forgetting.plot import draw

    draw(found, found.folder / "continual.svg")
    return found


def courses_of(outcomes: Sequence[Outcome], tasks: Sequence[str], confidence: float) -> Continual:
    """What runs that are done say.

    Raises:
        ConfigError: no run came to an end.
    """
    failed = {f"{one.run.method}, seed {one.run.seed}": one.error for one in outcomes if one.error}
    courses: dict[str, list[Course]] = {}
    metrics: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.metrics is None:
            continue
        stages = [
            json.loads((place / "metrics.json").read_text(encoding="utf-8"))
            for place in stage_folders(outcome.run.folder)
        ]
        metrics = {task: stages[0]["first"][task]["metric"] for task in tasks}
        scores = [[stage["validation"][task][metrics[task]] for task in tasks] for stage in stages]
        trivial = [stages[0]["trivial"][task].get(metrics[task], math.nan) for task in tasks]
        courses.setdefault(outcome.run.method, []).append(Course(np.array(scores), np.array(trivial)))
    if not courses:
        why = "; ".join(f"{what}: {said}" for what, said in failed.items()) or "it was stopped before one was done"
        raise ConfigError(f"continual: no run came to an end ({why}); go on by the same command")
    return Continual(list(tasks), metrics, courses, confidence, failed)
