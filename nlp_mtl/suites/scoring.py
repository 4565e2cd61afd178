"""The owners' metrics and average of what runs answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl import metrics
from nlp_mtl.suites.answering import Answers, answers
from nlp_mtl.suites.tables import Part, Suite, suite_named
from nlp_mtl.taskfile import Split

SHOWN = {
    "group_exact_match": "EM",
    "best_f1_answer": "F1",
    "best_exact_match": "EM",
    "matthews_correlation": "Matthews",
}


@dataclass(frozen=True)
class SuiteScore:
    """A suite's scores as its owners compute them, in [0, 1].

    Attributes:
        suite: the suite.
        metrics: part → its official metrics.
        tasks: task of the average → the mean of its metrics; only tasks whose parts are all there.
        missing: tasks of the average that no run answers.
        rows: part → rows scored.
        by: part → the run that answered.
        notes: what was passed over, and why.
    """

    suite: Suite
    metrics: dict[str, dict[str, float]]
    tasks: dict[str, float]
    missing: list[str]
    rows: dict[str, int] = field(default_factory=dict)
    by: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """The mean over the tasks that are there."""
        return sum(self.tasks.values()) / len(self.tasks) if self.tasks else None

    @property
    def whole(self) -> bool:
        """Whether the mean is the owners' average: no task is missing."""
        return not self.missing

    @property
    def name(self) -> str:
        """What the mean may be called."""
        if self.whole:
            return f"{self.suite.title} score"
        return f"mean of {len(self.tasks)} of {len(self.suite.scored)} tasks"

    def table(self) -> list[dict[str, str]]:
        """One row per part: task, metrics, mean, rows."""
        own = {part: task for task, parts in self.suite.scored.items() for part in parts if len(parts) == 1}
        return [
            {
                "task": self.suite.part(part).file,
                "metrics": ", ".join(f"{SHOWN.get(name, name)} {100 * value:.1f}" for name, value in found.items()),
                "mean": f"{100 * self.tasks[own[part]]:.1f}" if part in own else "",
                "rows": str(self.rows.get(part, 0)),
            }
            for part, found in self.metrics.items()
        ]

    def sentences(self) -> list[str]:
        """The mean by its right name, what is missing, and what was passed over."""
        said = []
        double = [task for task, parts in self.suite.scored.items() if len(parts) > 1 and task in self.tasks]
        said += [f"{task}: {100 * self.tasks[task]:.1f}, the mean over its parts." for task in double]
        if self.mean is not None:
            said.append(f"{self.name[0].upper() + self.name[1:]}: {100 * self.mean:.1f} (validation rows).")
        if self.missing:
            said.append(f"Missing: {', '.join(self.missing)}. This is not the {self.suite.title} score.")
        return [*said, *(f"{note}." for note in self.notes)]

    def as_json(self) -> str:
        """All of it for programs."""
        said: dict[str, Any] = {
            "suite": self.suite.name,
            "split": "validation",
            "name": self.name,
            "mean": self.mean,
            "tasks": self.tasks,
            "metrics": self.metrics,
            "missing": self.missing,
            "rows": self.rows,
            "by": {part: str(run) for part, run in self.by.items()},
            "notes": self.notes,
        }
        return json.dumps(said, indent=1) + "\n"


def score_suite(
    runs: Sequence[str | Path],
    suite: str | Suite = "glue",
    *,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> SuiteScore:
    """Score runs on a suite's validation rows (labels of test rows are hidden) as its owners do.

    Per task the official metrics; the average is the mean over tasks of the mean of each task's metrics. MNLI's two
    halves are one task; the diagnostic sets (AX, AX-b, AX-g) are not in it. AdvGLUE's rows are GLUE's, changed to
    mislead: the heads of GLUE's tasks answer them.

    Args:
        runs: run folders; each may answer some tasks, the first that has one answers it.
        suite: glue, superglue or advglue.
        data_root, base: see :func:`nlp_mtl.run.evaluate`.
        progress: show a bar.

    Raises:
        UnknownNameError: another suite.
        ConfigError: no run has a task of it.

    References:
        GLUE: Wang et al., 2018, arXiv 1804.07461. SuperGLUE: Wang et al., 2019, arXiv 1905.00537. AdvGLUE: Wang et
        al., 2021, arXiv 2111.02840.
    """
    chosen = suite_named(suite) if isinstance(suite, str) else suite
    split: Split = "validation"
    return scored(chosen, answers(runs, chosen, split, data_root=data_root, base=base, progress=progress))


def scored(suite: Suite, said: Answers) -> SuiteScore:
    """The scores of answers that are there already; unlabelled parts are left out."""
    found = {
        part.task: official(part, said.found[part.task])
        for part in suite.parts
        if part.task in said.found and said.found[part.task].metrics
    }
    tasks, missing = average(suite, found)
    rows = {part: said.found[part].rows for part in found}
    return SuiteScore(suite, found, tasks, missing, rows, said.by, said.notes)


def official(part: Part, found: Any) -> dict[str, float]:
    """A part's official metrics, of what evaluation found."""
    known = {name: found.metrics[name] for name in part.metrics if name in found.metrics}
    if rest := [name for name in part.metrics if name not in known]:
        known |= metrics.score(rest, found.decoded, found.references, labels=found.labels, given=found.given)
    return {name: known[name] for name in part.metrics}


def average(suite: Suite, found: dict[str, dict[str, float]]) -> tuple[dict[str, float], list[str]]:
    """Task → the mean of its metrics, and the tasks that are missing.

    Example:
        >>> from nlp_mtl.suites.tables import GLUE
        >>> tasks, missing = average(GLUE, {"mrpc": {"f1": 0.9, "accuracy": 0.8}, "mnli": {"accuracy": 0.7}})
        >>> round(tasks["MRPC"], 3), missing[0], "MNLI" in missing
        (0.85, 'CoLA', True)
    """
    tasks, missing = {}, []
    for task, parts in suite.scored.items():
        if all(part in found for part in parts):
            values = [value for part in parts for value in found[part].values()]
            tasks[task] = sum(values) / len(values)
        else:
            missing.append(task)
    return tasks, missing
