"""The score matrix of a sequence of tasks, and what is read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Course:
    """Scores of every task after every stage of one training.

    Attributes:
        scores: [stages, tasks]; stage k trained task k. Of all tasks together there is one stage.
        trivial: [tasks], of the trivial baseline.

    Example:
        >>> found = Course(np.array([[0.8, 0.5], [0.6, 0.9]]), np.array([0.5, 0.5]))
        >>> round(found.average, 3), round(found.backward, 3), round(found.forgetting, 3), round(found.forward, 3)
        (0.75, -0.2, 0.2, 0.0)
    """

    scores: np.ndarray
    trivial: np.ndarray

    @property
    def in_turn(self) -> bool:
        """Whether there is a stage for each task."""
        return len(self.scores) > 1

    @property
    def average(self) -> float:
        """The mean over tasks after the last stage (average accuracy)."""
        return float(self.scores[-1].mean())

    @property
    def backward(self) -> float:
        """Backward transfer: how much better a task is at the end than after its own stage, in the mean."""
        own = np.diag(self.scores)[:-1]
        return float((self.scores[-1][:-1] - own).mean()) if self.in_turn else math.nan

    @property
    def forgetting(self) -> float:
        """How much worse a task is at the end than it was at its best before, in the mean; at most 0 is none."""
        if not self.in_turn:
            return math.nan
        lost = [self.scores[task:-1, task].max() - self.scores[-1, task] for task in range(self.scores.shape[1] - 1)]
        return float(np.mean(lost))

    @property
    def forward(self) -> float:
        """Forward transfer: how much better than the trivial baseline a task is before its own stage, in the mean."""
        if not self.in_turn:
            return math.nan
        before = np.array([self.scores[task - 1, task] for task in range(1, self.scores.shape[1])])
        return float((before - self.trivial[1:]).mean())


MEASURES = ("average", "backward", "forgetting", "forward")


def mean_matrix(found: Sequence[Course]) -> np.ndarray:
    """[stages, tasks], the mean over seeds."""
    return np.mean([one.scores for one in found], axis=0)
