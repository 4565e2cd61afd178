"""What heads share that give labels to a text or pair: weights of the labels, and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nlp_mtl import metrics
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads.class_weights import ClassWeights
from nlp_mtl.heads.pooled import PooledHead, Pooling
from nlp_mtl.heads.thresholds import Thresholds
from nlp_mtl.taskfile import Task


class DecidingHead(PooledHead):
    """Base of heads that give labels to a text or pair.

    Args:
        task: the task.
        class_weights: see :class:`nlp_mtl.heads.class_weights.ClassWeights`.
        sides: whether each label is decided on its own.
        threshold, tuned: see :class:`nlp_mtl.heads.thresholds.Thresholds`; without a threshold the most probable label
            is given.
        pooling, pooler: see :class:`PooledHead`.
    """

    def __init__(
        self,
        task: Task,
        *,
        class_weights: Any,
        sides: bool,
        threshold: Any,
        tuned: Any,
        pooling: Pooling,
        pooler: Literal["shared", "own"],
    ):
        super().__init__(task, pooling, pooler)
        mistakes: list[str] = []
        self.class_weights: ClassWeights | None = None
        self.thresholds: Thresholds | None = None
        try:
            if class_weights is not None:
                self.class_weights = ClassWeights(task.name, class_weights, sides=sides)
        except ConfigError as error:
            mistakes += error.mistakes
        try:
            if threshold is not None or tuned is not None:
                self.thresholds = Thresholds(task.name, threshold, tuned)
        except ConfigError as error:
            mistakes += error.mistakes
        if mistakes or (mistakes := self._misfits()):
            raise ConfigError(mistakes)

    def set_labels(self, names: Sequence[str] | None) -> None:
        """Label names found in the data, which must be those that weights and thresholds name."""
        known = self.labels
        super().set_labels(names)
        if known is None and (mistakes := self._misfits()):
            raise DataError("\n".join(mistakes))

    def _misfits(self) -> list[str]:
        """What is wrong with weights and thresholds, as soon as the labels are known."""
        if self.labels is None:
            return []
        mistakes = self.class_weights.misfits(self.labels) if self.class_weights else []
        if self.thresholds is not None:
            mistakes += self._refused() or self._unmoved() or self.thresholds.misfits(self.decided())
        return mistakes

    def _refused(self) -> list[str]:
        """Why the task can't have thresholds."""
        return []

    def _unmoved(self) -> list[str]:
        """Why its thresholds can't be tuned: the metric that would choose them looks at more than decisions."""
        first = self.metrics[0]
        if not self.tunes or not (more := metrics.needs(first)):
            return []
        return [
            f"task {self.task.name!r}: `threshold: tuned` needs a first metric that decisions alone make, found "
            f"{first!r}, which reads {' and '.join(more)}; put f1 or another one first in `metrics`"
        ]

    def decided(self) -> list[str]:
        """The labels that a threshold decides."""
        raise NotImplementedError

    def log_odds(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, decided labels]: log-odds of each, in float64."""
        raise NotImplementedError

    def _search(self, odds: np.ndarray, references: Sequence[Any]) -> Sequence[float]:
        """The best thresholds of the decided labels."""
        raise NotImplementedError

    @property
    def tunes(self) -> bool:
        """Whether thresholds are tuned."""
        return self.thresholds is not None and self.thresholds.tuned

    def chosen(self) -> dict[str, float]:
        """The tuned thresholds by label."""
        found = self.thresholds is not None and self.thresholds.found
        return self.thresholds.of(self.decided()) if self.thresholds is not None and found else {}

    def tune(self, predictions: Sequence[Any], references: Sequence[Any]) -> None:
        """Take the thresholds at which the task's first metric is best."""
        found = self._search(self.log_odds(predictions), references)
        self.recall({"tuned": dict(zip(self.decided(), map(float, found), strict=True))})

    def recall(self, spec: Mapping[str, Any]) -> None:
        """Take tuned thresholds as a spec records them; without any, 0.5."""
        if not self.tunes:
            return
        found = spec.get("tuned")
        self.thresholds = Thresholds(self.task.name, "tuned", found)
        self.record(tuned=found)
