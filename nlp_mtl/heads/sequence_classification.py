"""One class per text or pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Columns
from nlp_mtl.heads.deciding import DecidingHead
from nlp_mtl.heads.labels import Where, class_numbers, name_of, names_in
from nlp_mtl.heads.pooled import Pooling, most_frequent, softmax
from nlp_mtl.heads.thresholds import at_least, tune_one
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("sequence_classification")
class SequenceClassification(DecidingHead):
    """One class per text or pair.

    Args:
        task: the task.
        class_weights: ``balanced``, so that all classes weigh the same together, n / (k · n_c) each; or a mapping
            label → weight, brought to a mean of 1 over the training rows. See
            :class:`nlp_mtl.heads.class_weights.ClassWeights`.
        threshold: of two labels, the probability from which the second (the positive one) is given: a number, or
            ``tuned`` on the validation rows at every evaluation for the first metric; default: the more probable one.
        tuned: what ``threshold: tuned`` found; recorded with a run.
        pooling, pooler: see :class:`PooledHead`.
    """

    auto_class = "AutoModelForSequenceClassification"
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    gives_scores = True

    def __init__(
        self,
        task: Task,
        class_weights: Any = None,
        threshold: Any = None,
        tuned: Any = None,
        pooling: Pooling = "family",
        pooler: Literal["shared", "own"] = "shared",
    ):
        super().__init__(
            task,
            class_weights=class_weights,
            sides=False,
            threshold=threshold,
            tuned=tuned,
            pooling=pooling,
            pooler=pooler,
        )

    def _refused(self) -> list[str]:
        names = self.labels or []
        if len(names) == 2:
            return []
        return [
            f"task {self.task.name!r}: `threshold` decides between two labels, found {len(names)} "
            f"({', '.join(names[:4])}{', …' if len(names) > 4 else ''}): among more, no single number says which one "
            "is given; leave it out, and say `class_weights` for rare labels"
        ]

    def decided(self) -> list[str]:
        """The second of two labels."""
        return list(self.labels or [])[1:]

    def log_odds(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, 1]: log-odds of the second label."""
        logits = np.asarray(predictions, dtype=np.float64)
        return logits[:, 1:] - logits[:, :1]

    def _search(self, odds: np.ndarray, references: Sequence[Any]) -> list[float]:
        return [tune_one(odds[:, 0], np.asarray(references), self.metrics[0], self.labels or [])]

    def begin(self, module: nn.Module, labels: Sequence[Any], *, fresh: bool) -> None:
        """Take the classes' weights."""
        known = [label for label in labels if label is not None]
        if self.class_weights is not None and known:
            counts = np.bincount(known, minlength=len(self.labels or []))
            self.record(class_weights=self.class_weights.learn(counts, self.labels or []))

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
        """Sum of cross entropies over rows, each times its class's weight."""
        weights = self.class_weights.table(self.labels or [], logits) if self.class_weights else None
        return functional.cross_entropy(logits.float(), target["labels"], weight=weights, reduction="sum")

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row the logits [labels]."""
        return list(logits.detach().float().cpu().numpy())

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[int]:
        """Class numbers."""
        if self.thresholds is not None and len(predictions):
            return self.thresholds.decide(self.log_odds(predictions), self.decided())[:, 0].tolist()
        return np.argmax(np.asarray(predictions), -1).tolist() if len(predictions) else []

    def undecided(self, predictions: Sequence[Any], rows: Any) -> list[int]:
        """Class numbers at a threshold of 0.5."""
        return at_least(self.log_odds(predictions), 0.5)[:, 0].tolist()

    def in_words(self, decoded: int) -> str:
        """The label's name."""
        return (self.labels or [])[decoded]

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The label's name, its probability, and those of all labels."""
        return self.answers([[(prediction, row)]])[0]

    def answers(self, inputs: Sequence[Sequence[tuple[Any, Mapping[str, Any]]]]) -> list[dict[str, Any]]:
        """As :meth:`answer`, for many inputs."""
        logits, names = np.stack([parts[0][0] for parts in inputs]), self.labels or []
        rounded = softmax(logits).astype(np.float64).round(6).tolist()
        every = [dict(zip(names, scores, strict=True)) for scores in rounded]
        given = [names[best] for best in self.decode(logits, None)]  # type: ignore[arg-type]
        return [
            {"label": label, "score": scores[label], "scores": scores}
            for label, scores in zip(given, every, strict=True)
        ]

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
