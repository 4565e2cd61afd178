"""One class per text or pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Columns
from nlp_mtl.heads.labels import Where, class_numbers, name_of, names_in
from nlp_mtl.heads.pooled import PooledHead, most_frequent, softmax
from nlp_mtl.registry import heads


@heads.register("sequence_classification")
class SequenceClassification(PooledHead):
    """One class per text or pair."""

    auto_class = "AutoModelForSequenceClassification"
    default_metrics = ("accuracy",)
    gives_scores = True

    def label_names(self, rows: Any, column: str) -> list[str] | None:
        """Names of a ClassLabel column, or the sorted distinct values."""
        feature = rows.features[column]
        if getattr(feature, "names", None):
            return list(feature.names)
        return names_in(rows[column], self.task.name)

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Class numbers; see :func:`nlp_mtl.heads.base.class_numbers`."""
        if self.labels is None:
            raise DataError(f"{where}: the task has no labels")
        if self.task.labels is None and not names and values and not isinstance(values[0], str):
            values = [value if value == -1 else name_of(value) for value in values]
        return class_numbers(values, names, self.labels, where)

    def config_changes(self) -> dict[str, Any]:
        """Labels and the problem type."""
        return {**super().config_changes(), "problem_type": "single_label_classification"}

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of cross entropies over rows."""
        return functional.cross_entropy(logits.float(), target["labels"], reduction="sum")

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row the logits [labels]."""
        return list(logits.detach().float().cpu().numpy())

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[int]:
        """Class numbers."""
        return [int(np.argmax(prediction)) for prediction in predictions]

    def in_words(self, decoded: int) -> str:
        """The label's name."""
        return (self.labels or [])[decoded]

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The label's name, its probability, and those of all labels."""
        scores = softmax(prediction)
        best, names = int(scores.argmax()), self.labels or []
        every = {name: round(float(score), 6) for name, score in zip(names, scores, strict=True)}
        return {"label": names[best], "score": every[names[best]], "scores": every}

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[int]:
        """The most frequent class of the training rows."""
        return [most_frequent(train_labels)] * len(labels)

    def scores(self, predictions: Sequence[Any]) -> np.ndarray:
        """[rows, labels]: probabilities."""
        return softmax(np.asarray(predictions, dtype=np.float64))

    def trivial_scores(self, train_labels: Sequence[Any], rows: int) -> np.ndarray:
        """[rows, labels]: each class's share of the training rows."""
        counts = np.bincount([label for label in train_labels if label is not None], minlength=len(self.labels or []))
        return np.tile(counts / max(1, counts.sum()), (rows, 1))
