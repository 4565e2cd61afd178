"""The calibration of a run's tasks, as a finding beside the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlp_mtl.calibration.measures import (
    Bin,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from nlp_mtl.calibration.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature, probabilities
from nlp_mtl.errors import ConfigError
from nlp_mtl.findings import Finding, Table, write_finding
from nlp_mtl.pulling import local_folder
from nlp_mtl.runspec import read_spec
from nlp_mtl.taskfile import Split

HEADS = ("sequence_classification", "multiple_choice")
FEW = 100  # with fewer rows, an ECE is mostly noise


@dataclass(frozen=True)
class Measured:
    """How well probabilities fit.

    Attributes:
        ece: with 15 bins as wide.
        ece_equal_mass: with 15 bins of as many rows.
        brier, nll: Brier score, negative log-likelihood.
        bins: of the reliability diagram.
    """

    ece: float
    ece_equal_mass: float
    brier: float
    nll: float
    bins: list[Bin]


@dataclass(frozen=True)
class TaskCalibration:
    """A task's calibration.

    Attributes:
        rows: how many were looked at.
        accuracy: of the most probable class.
        confidence: the mean probability of that class.
        temperature: the best one for all rows: the one to use.
        halves: those of the two halves.
        before: of the probabilities as they are.
        after: of probabilities whose temperature was found on the other half of the rows.
    """

    rows: int
    accuracy: float
    confidence: float
    temperature: float
    halves: tuple[float, float]
    before: Measured
    after: Measured


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run.

    Attributes:
        run: its folder.
        split: whose rows were looked at.
        tasks: task → what was found.
        left_out: task → why not.
    """

    run: Path
    split: str
    tasks: dict[str, TaskCalibration]
    left_out: dict[str, str] = field(default_factory=dict)

    def table(self) -> list[dict[str, str]]:
        """One row per task: as it is, and scaled."""
        return [
            {
                "task": task,
                "rows": str(one.rows),
                "accuracy": f"{one.accuracy:.3f}",
                "confidence": f"{one.confidence:.3f}",
                "ECE": _pair(one.before.ece, one.after.ece),
                "ECE, equal mass": _pair(one.before.ece_equal_mass, one.after.ece_equal_mass),
                "Brier": _pair(one.before.brier, one.after.brier),
                "NLL": _pair(one.before.nll, one.after.nll),
                "temperature": f"{one.temperature:.2f}",
            }
            for task, one in self.tasks.items()
        ]

    def sentences(self) -> list[str]:
        """What it means, the most important first."""
        said = []
        for task, one in self.tasks.items():
            gap = one.confidence - one.accuracy
            sure = "surer than it is right" if gap > 0 else "less sure than it is right"
            better = one.after.nll < one.before.nll
            mends = f"a temperature of {one.temperature:.2f} mends that in part" if better else "no temperature helps"
            if one.temperature in (LOWEST, HIGHEST):
                mends += f" ({one.temperature} is the end of what is tried)"
            said.append(
                f"{task}: mean confidence {one.confidence:.3f}, accuracy {one.accuracy:.3f}: {sure} by {abs(gap):.3f}; "
                f"on rows it was not found on, {mends} (NLL {_pair(one.before.nll, one.after.nll)}, ECE "
                f"{_pair(one.before.ece, one.after.ece)})."
            )
        if few := [task for task, one in self.tasks.items() if one.rows < FEW]:
            said.append(f"With fewer than {FEW} rows an ECE is mostly noise: {', '.join(few)}.")
        if self.left_out:
            said.append("Left out: " + "; ".join(f"{task} ({why})" for task, why in self.left_out.items()) + ".")
        return said

    def finding(self) -> Finding:
        """For the report."""
        from nlp_mtl.calibration.plot import diagram

        rows = self.table()
        head = list(rows[0])
        pictures = [diagram(task, one.before.bins, one.after.bins) for task, one in self.tasks.items()]
        return Finding(
            "calibration",
            "Are the probabilities right?",
            [
                *self.sentences(),
                "Each second figure is of probabilities scaled with a temperature that was found on the other half of "
                f"the {self.split} rows; the temperature in the table was found on all of them.",
            ],
            [Table("", head, [[row[key] for key in head] for row in rows])],
            [one.drawing() for one in pictures],
            {
                "split": self.split,
                "tasks": {task: asdict(one) for task, one in self.tasks.items()},
                "left_out": self.left_out,
            },
        )


def _pair(before: float, after: float) -> str:
    return f"{before:.3f} → {after:.3f}"


def calibrate(
    run: str | Path,
    *,
    split: Split = "validation",
    tasks: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Calibration:
    """Measure the calibration of a run's classification tasks, and what a temperature would change.

    Nothing of the model is changed. The finding `calibration` is written beside the run.

    Args:
        run: a run folder.
        split: whose labelled rows are looked at.
        tasks: only these.
        data_root, base: see :func:`nlp_mtl.run.evaluate`.
        progress: show a bar.

    Raises:
        ConfigError: no task of the run has a head with one class per row, and labelled rows.

    Cost: one pass over the split.
    """
    from nlp_mtl.run import evaluate

    folder = local_folder(run)
    heads = {
        item["name"]: item["head"] for item in read_spec(folder)["tasks"] if tasks is None or item["name"] in tasks
    }
    kinds = {name: head if isinstance(head, str) else head["name"] for name, head in heads.items()}
    left_out = {
        name: f"its head {kind} gives no probabilities of one class per row"
        for name, kind in kinds.items()
        if kind not in HEADS
    }
    wanted = [name for name in tasks or kinds if name not in left_out]  # an unknown name is said by evaluate
    found: dict[str, TaskCalibration] = {}
    if wanted:
        scores = evaluate(
            folder, split, tasks=wanted, data_root=data_root, base=base, predictions=True, progress=progress
        )
        for name in wanted:
            if name not in scores or not scores[name].metrics:
                left_out[name] = f"no labelled rows in {split}"
            elif scores[name].rows < 4:
                left_out[name] = f"only {scores[name].rows} rows in {split}"
            else:
                found[name] = measured(scores[name].predictions, scores[name].references)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"calibrate: a run with a task of {' or '.join(HEADS)} and labelled rows, found {why}")
    made = Calibration(folder, split, found, left_out)
    write_finding(folder, made.finding())
    return made


def measured(predictions: Sequence[Any], references: Sequence[int]) -> TaskCalibration:
    """A task's calibration.

    Args:
        predictions: logits of each row; rows may have different numbers of choices.
        references: numbers of the right classes.
    """
    logits = np.full((len(predictions), max(map(len, predictions))), -np.inf)
    for number, row in enumerate(predictions):
        logits[number, : len(row)] = row
    labels = np.asarray(references, dtype=int)
    plain = probabilities(logits)
    each, halves = cross_fitted(logits, labels)
    return TaskCalibration(
        len(labels),
        float((plain.argmax(1) == labels).mean()),
        float(plain.max(1).mean()),
        fit_temperature(logits, labels),
        halves,
        _measured(plain, labels),
        _measured(probabilities(logits, each), labels),
    )


def _measured(chances: np.ndarray, labels: np.ndarray) -> Measured:
    return Measured(
        expected_calibration_error(chances, labels),
        expected_calibration_error(chances, labels, equal_mass=True),
        brier_score(chances, labels),
        negative_log_likelihood(chances, labels),
        reliability(chances, labels),
    )
