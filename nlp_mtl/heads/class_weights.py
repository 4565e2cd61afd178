"""How much the rows of each label weigh in the loss, for tasks whose labels are rare and frequent.

A loss stays a sum divided by the step's COUNT of rows or labelled tokens, not by the sum of their weights: the weights
are brought to a mean of 1 over the training rows instead. So over an epoch both denominators are the same and a task's
share beside other tasks does not change, only the ratios between its labels. Dividing by the weights that a step
happens to hold would shrink a rare row exactly in the steps where it stands, and its gradient would be biased.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.errors import ConfigError, suggestion
from nlp_mtl.heads.labels import name_of


class ClassWeights:
    """The weights of a task's labels.

    They stand in groups of which every row (or token) has exactly one member: the classes are one group; with any
    number of labels per row, each label's two sides (not given, given) are a group of two.

    Args:
        task: the task's name, for messages.
        given: ``balanced``, or a mapping label → weight; with `sides`, a weight of rows that have the label where those
            without it weigh 1 (`pos_weight` in torch), or both as ``[without, with]``.
        sides: whether the labels are decided each on its own.

    Raises:
        ConfigError: neither, or weights that are no numbers from 0 up; all of them at once.

    Example:
        >>> weights = ClassWeights("spam", "balanced")
        >>> weights.learn(np.array([6, 2]), ["ham", "spam"])
        {'ham': 0.6666666666666666, 'spam': 2.0}
        >>> weights = ClassWeights("mood", {"joy": 3}, sides=True)
        >>> weights.learn(np.array([[2, 2]]), ["joy"])
        {'joy': [0.5, 1.5]}
    """

    def __init__(self, task: str, given: Any, *, sides: bool = False):
        self.task, self.sides = task, sides
        self.weights: dict[str, Any] | None = None  # None: balanced, and no training rows were seen yet
        if given == "balanced":
            return
        if not isinstance(given, Mapping) or not given:
            raise ConfigError(
                f"task {task!r}: `class_weights` is balanced, or a mapping label → weight, found {given!r}"
            )
        wrong = [(label, weight) for label, weight in given.items() if not self._is_weight(weight)]
        rule = "a number from 0 up" + (", or [without, with] that are not both 0" if sides else "")
        mistakes = [f"task {task!r}: `class_weights`: {label!r} weighs {rule}, found {w!r}" for label, w in wrong]
        if not mistakes and not sides and not any(given.values()):
            mistakes = [f"task {task!r}: `class_weights`: at least one label weighs more than 0, found 0 for all"]
        if mistakes:
            raise ConfigError(mistakes)
        self.weights = {str(name_of(label)): weight for label, weight in given.items()}

    def _is_weight(self, value: Any) -> bool:
        if self.sides and isinstance(value, (list, tuple)):
            return len(value) == 2 and all(map(_is_number, value)) and any(value)
        return _is_number(value)

    def misfits(self, labels: Sequence[str]) -> list[str]:
        """What is wrong with the labels that have a weight, one message each."""
        if self.weights is None:
            return []
        unknown = [label for label in self.weights if label not in labels]
        whose = f"task {self.task!r}: `class_weights`"
        mistakes = [f"{whose} names {label!r}, which is no label{suggestion(label, labels)}" for label in unknown]
        missing = [label for label in labels if label not in self.weights]
        if missing:
            shown = ", ".join(map(repr, missing[:6])) + (", …" if len(missing) > 6 else "")
            mistakes.append(f"{whose} gives every label a weight (1 is the usual one), found none for {shown}")
        return mistakes

    def learn(self, counts: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """Take the weights for these training rows, and give them as they are recorded.

        Args:
            counts: [labels], or with `sides` [labels, 2]: how many rows (or tokens) each has.
            labels: the label names.

        Raises:
            ConfigError: all rows weigh 0.
        """
        if self.weights is None:
            table = balanced(counts)
        else:
            table = self._table(labels)
            mean = (table * counts).sum(-1) / counts.sum(-1)
            if not np.all(mean):
                raise ConfigError(
                    f"task {self.task!r}: `class_weights`: no training row has a label that weighs more than 0"
                )
            if np.abs(mean - 1).max() > 1e-6:  # else they are recorded ones, to be kept to the bit
                table = table / mean[..., None]
        self.weights = dict(zip(labels, table.tolist(), strict=True))
        return self.weights

    def table(self, labels: Sequence[str], like: Tensor) -> Tensor | None:
        """[labels], or with `sides` [labels, 2], in float32 where `like` is; None where all weigh the same."""
        if self.weights is None:
            return None
        return torch.tensor(self._table(labels), dtype=torch.float32, device=like.device)

    def _table(self, labels: Sequence[str]) -> np.ndarray:
        weights = [(self.weights or {})[label] for label in labels]
        if self.sides:
            weights = [weight if isinstance(weight, (list, tuple)) else (1.0, weight) for weight in weights]
        return np.asarray(weights, dtype=np.float64)


def balanced(counts: np.ndarray) -> np.ndarray:
    """Weights by which all classes weigh the same together: n / (k · n_c) for k classes with n_c of n rows each.

    A class without rows does not count in k, and its weight is 1. Their mean over the rows is 1.

    Args:
        counts: […, classes].

    References:
        King and Zeng, "Logistic Regression in Rare Events Data", 2001; the formula is `class_weight="balanced"` of
        scikit-learn.

    Example:
        >>> balanced(np.array([6, 2, 0])).tolist()
        [0.6666666666666666, 2.0, 1.0]
    """
    total, present = counts.sum(-1, keepdims=True), counts > 0
    return np.where(present, total / (present.sum(-1, keepdims=True) * np.maximum(counts, 1)), 1.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
