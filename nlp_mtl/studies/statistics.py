"""Means with intervals over a few seeds, and the mean relative change against single tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and how far it may be off.

    Attributes:
        mean: of the values.
        half: half the width of Student's interval; NaN of a single value.
        count: how many values.
    """

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of a mean (Student, 1908, Biometrika 6).

    Args:
        values: one for each seed, at least one.
        confidence: of the interval, between 0 and 1.

    Example:
        >>> str(interval([0.70, 0.72, 0.71]))
        '0.710 ± 0.025'
        >>> str(interval([0.70]))
        '0.700'
    """
    from scipy import stats

    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()), math.nan, len(array))
    error = array.std(ddof=1) / math.sqrt(len(array))
    return Interval(float(array.mean()), float(stats.t.ppf((1 + confidence) / 2, len(array) - 1) * error), len(array))


def corrected(found: Interval, confidence: float, comparisons: int) -> Interval:
    """An interval as wide as it must be for several comparisons to hold together (Bonferroni, 1936).

    Args:
        found: Student's interval of `confidence`.
        confidence: of all comparisons together.
        comparisons: how many there are.

    Example:
        >>> values = [0.010, 0.012, 0.014]
        >>> wide = corrected(interval(values), 0.95, 4)
        >>> round(wide.half, 6) == round(interval(values, 1 - 0.05 / 4).half, 6)
        True
    """
    from scipy import stats

    if found.count < 2:
        return found
    usual, wanted = (stats.t.ppf(1 - (1 - confidence) / 2 / times, found.count - 1) for times in (1, comparisons))
    return Interval(found.mean, found.half * float(wanted / usual), found.count)


def relative_change(scores: Mapping[str, float], reference: Mapping[str, float], higher: Mapping[str, bool]) -> float:
    """Δm, in per cent: the mean over tasks of how much better each score is than its reference, relative to that.

    Args:
        scores: task → first metric.
        reference: task → that of the task trained alone; a task with 0 there has no relative change and is left out.
        higher: task → whether more is better.

    Relations: Maninis et al. (2019, arXiv 1904.08918). A reference near 0 (Matthews of CoLA) makes a task count for
    many, so the mean difference in points stands beside it.

    Example:
        >>> round(relative_change({"a": 0.55, "b": 0.9}, {"a": 0.5, "b": 1.0}, {"a": True, "b": True}), 9)
        0.0
    """
    changes = [
        (1 if higher[task] else -1) * (scores[task] - known) / abs(known)
        for task, known in reference.items()
        if task in scores and known
    ]
    return 100 * float(np.mean(changes)) if changes else math.nan


def verdict(differences: Interval) -> str:
    """What paired differences to the baseline show: ``better``, ``worse``, or ``no difference shown``.

    Example:
        >>> verdict(interval([0.01, 0.02, 0.015])), verdict(interval([0.01, -0.02, 0.015]))
        ('better', 'no difference shown')
    """
    if math.isnan(differences.half):
        return "one seed, no interval"
    return "better" if differences.low > 0 else "worse" if differences.high < 0 else "no difference shown"
