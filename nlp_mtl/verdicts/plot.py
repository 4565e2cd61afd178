"""Verdicts drawn: each task's difference to its twin, with its interval; and confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_mtl.reporting.heatmap import grid
from nlp_mtl.reporting.picture import FALL, INK, RISE, Picture, cut, styled
from nlp_mtl.verdicts.judging import HELPED, HURT

if TYPE_CHECKING:
    from nlp_mtl.verdicts.said import Verdicts

_CLASSES = 20  # a larger matrix is no picture


def forest(found: Verdicts) -> Picture:
    """A line for each task: how much better the run is than its twin, with what is known of it."""
    from matplotlib.figure import Figure

    tasks = found.tasks
    with styled("verdict"):
        figure: Any = Figure(figsize=(9.0, 1.1 + 0.34 * len(tasks)), layout="constrained")
        axis = figure.subplots()
        for place, one in enumerate(reversed(tasks)):
            colour = {HELPED: RISE, HURT: FALL}.get(one.said, INK)
            known = not math.isnan(one.found.half)
            half = one.found.half if known else one.found.rows_half
            axis.errorbar(
                [one.found.mean],
                [place],
                xerr=[[0 if math.isnan(half) else half]] * 2,
                fmt="o",
                markerfacecolor=colour if known else "none",
                color=colour,
                capsize=3 if known else 0,
                linestyle="none",
                elinewidth=1.4 if known else 0.8,
            )
            axis.plot(one.found.each, [place - 0.22] * len(one.found.each), "|", color=colour, markersize=5, alpha=0.6)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(tasks)), [f"{cut(one.task, 28)} ({one.metric})" for one in reversed(tasks)])
        axis.set_ylim(-0.6, len(tasks) - 0.4)
        axis.set_xlabel("together − alone (right is better)")
    said = "; ".join(f"{one.task} {one.found}, {one.said}" for one in tasks)
    return Picture(
        "verdict",
        "Did training together help?",
        f"Differences to tasks trained alone: {said}.",
        "Mean difference of the score to the task trained alone, with its 95 % interval over seeds and rows; the small "
        "marks are the seeds. An empty point has too few seeds for a verdict, and a thin line over rows alone.",
        figure,
    )


def confusion(task: str, labels: Sequence[str], predictions: Sequence[int], references: Sequence[int]) -> Picture:
    """A confusion matrix: of the rows that are of a class (a line), the share that was said to be of each.

    Args:
        task: its name.
        labels: of the classes, at most 20.
        predictions, references: class numbers.
    """
    count = len(labels)
    matrix = np.zeros((count, count))
    np.add.at(matrix, (np.asarray(references, dtype=int), np.asarray(predictions, dtype=int)), 1)
    total = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)
    wrong = shares.copy()
    np.fill_diagonal(wrong, -1)
    worst = divmod(int(np.nanargmax(wrong)), count)
    return grid(
        f"confusion-{task}",
        f"{task}: what is taken for what",
        f"Confusion matrix of {task}; {labels[worst[0]]} is taken for {labels[worst[1]]} most, in "
        f"{shares[worst]:.0%} of its rows.",
        "A line for each true class, a column for each that was said; the share of the line's rows.",
        [cut(label, 18) for label in labels],
        {f"{cut(label, 18)} ({int(n)})": row for label, n, row in zip(labels, total[:, 0], shares, strict=True)},
        label="share of the rows",
    )


def drawable(labels: Sequence[str] | None, predictions: Sequence[Any], references: Sequence[Any]) -> bool:
    """Whether there is a confusion matrix of these."""
    return (
        labels is not None
        and 2 <= len(labels) <= _CLASSES
        and all(isinstance(one, int) and 0 <= one < len(labels) for one in (*predictions, *references))
    )
