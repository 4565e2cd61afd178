"""Any number of labels per text or pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.nn import functional

from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads.base import Columns
from nlp_mtl.heads.labels import Where, class_numbers, complain, name_of, names_in
from nlp_mtl.heads.pooled import PooledHead, Pooling
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("multi_label")
class MultiLabel(PooledHead):
    """Any number of labels per text or pair, each decided on its own.

    Args:
        task: the task; the target column holds lists of names, lists of numbers, or lists of 0 and 1 for all labels.
        threshold: probability from which a label is given.
        pooling, pooler: see :class:`PooledHead`.
    """

    auto_class = "AutoModelForSequenceClassification"
    default_metrics = ("f1_micro", "f1_macro")
    label_type = "float32"
    label_is_list = True
    gives_scores = True

    def __init__(
        self,
        task: Task,
        threshold: float = 0.5,
        pooling: Pooling = "family",
        pooler: Literal["shared", "own"] = "shared",
    ):
        super().__init__(task, pooling, pooler)
        if not 0 < threshold < 1:
            raise ConfigError(f"task {task.name!r}: `threshold` is between 0 and 1, found {threshold}")
        self.threshold = threshold
        self._indicators: bool | None = None

    def look_at(self, values: Iterable[Any]) -> None:
        """Whether the lists are 0 and 1 for all labels, or name the labels that hold."""
        count = len(self.labels or [])
        lists = [value for value in values if isinstance(value, (list, tuple))]
        self._indicators = _zeros_and_ones(lists) and all(len(value) == count for value in lists)

    def label_names(self, rows: Any, column: str) -> list[str] | None:
        """Names of a list of ClassLabels, or the sorted distinct values."""
        feature: Any = getattr(rows.features[column], "feature", None)
        if getattr(feature, "names", None):
            return list(feature.names)
        lists = [values for values in rows[column] if values]
        if lists and len({len(v) for v in lists}) == 1 and len(lists[0]) > 1 and _zeros_and_ones(lists):
            raise DataError(
                f"task {self.task.name!r}: the target holds lists of 0 and 1 for {len(lists[0])} labels; name them in "
                "`labels`"
            )
        return names_in((value for values in lists for value in values), self.task.name)

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Lists of 0.0 and 1.0, one per label."""
        if self.labels is None:
            raise DataError(f"{where}: the task has no labels")
        complain(
            where,
            [
                (row, f"the target is a list of labels, found {str(value)[:40]!r}")
                for row, value in enumerate(values)
                if value is not None and not isinstance(value, (list, tuple))
            ],
        )
        if self._indicators is None:
            self.look_at(values)
        if self._indicators:
            return [None if value is None else [float(x) for x in value] for value in values]
        owners = [row for row, value in enumerate(values) for _ in (value or [])]
        flat = [label for value in values for label in (value or [])]
        if self.task.labels is None and not names:
            flat = [name_of(label) for label in flat]
        numbers = iter(class_numbers(flat, names, self.labels, where, rows=owners))
        given = [None if value is None else [next(numbers) for _ in value] for value in values]
        return [None if own is None else [float(n in own) for n in range(len(self.labels))] for own in given]

    def config_changes(self) -> dict[str, Any]:
        """Labels and the problem type."""
        return {**super().config_changes(), "problem_type": "multi_label_classification"}

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum over rows of the mean binary cross entropy over labels."""
        return (
            functional.binary_cross_entropy_with_logits(logits.float(), target["labels"].float(), reduction="none")
            .mean(-1)
            .sum()
        )

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row the logits [labels]."""
        return list(logits.detach().float().cpu().numpy())

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[list[int]]:
        """Lists of 0 and 1, one per label."""
        edge = float(np.log(self.threshold / (1 - self.threshold)))
        return [[int(x >= edge) for x in prediction] for prediction in predictions]

    def references(self, labels: Sequence[Any], rows: Any) -> list[Any]:
        """Lists of 0 and 1, one per label."""
        return [[int(x) for x in label] for label in labels]

    def in_words(self, decoded: Sequence[int]) -> list[str]:
        """The names given."""
        return [name for name, on in zip(self.labels or [], decoded, strict=True) if on]

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The names given, and every label's probability."""
        scores = 1 / (1 + np.exp(-prediction))
        every = {name: round(float(score), 6) for name, score in zip(self.labels or [], scores, strict=True)}
        return {"labels": [name for name, score in every.items() if score >= self.threshold], "scores": every}

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """Every label that more than half of the training rows have."""
        known = [label for label in train_labels if label is not None]
        often = (np.mean(known, axis=0) > 0.5).astype(int).tolist() if known else [0] * len(self.labels or [])
        return [often] * len(labels)

    def scores(self, predictions: Sequence[Any]) -> np.ndarray:
        """[rows, labels]: each label's own probability."""
        return 1 / (1 + np.exp(-np.asarray(predictions, dtype=np.float64)))

    def trivial_scores(self, train_labels: Sequence[Any], rows: int) -> np.ndarray:
        """[rows, labels]: each label's share of the training rows."""
        known = [label for label in train_labels if label is not None]
        return np.tile(np.mean(known, axis=0) if known else np.zeros(len(self.labels or [])), (rows, 1))


def _zeros_and_ones(lists: Sequence[Sequence[Any]]) -> bool:
    return all(x in (0, 1) and not isinstance(x, str) for value in lists for x in value)
