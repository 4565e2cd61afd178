"""Any number of labels per text or pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Columns
from nlp_mtl.heads.deciding import DecidingHead
from nlp_mtl.heads.labels import Where, class_numbers, complain, name_of, names_in
from nlp_mtl.heads.pooled import Pooling
from nlp_mtl.heads.thresholds import SEVERAL, at_least, tune_several
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("multi_label")
class MultiLabel(DecidingHead):
    """Any number of labels per text or pair, each decided on its own.

    Args:
        task: the task; the target column holds lists of names, lists of numbers, or lists of 0 and 1 for all labels.
        threshold: probability from which a label is given: a number, a mapping label → number, or ``tuned``, per label
            on the validation rows at every evaluation, for a first metric `f1_micro` or `f1_macro`.
        class_weights: ``balanced``, so that the rows with and without a label weigh the same together; or a mapping
            label → weight of the rows that have it, where those without it weigh 1 (`pos_weight` in torch). They are
            brought to a mean of 1 over the training rows, label by label.
        tuned: what ``threshold: tuned`` found; recorded with a run.
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
        threshold: Any = 0.5,
        class_weights: Any = None,
        tuned: Any = None,
        pooling: Pooling = "family",
        pooler: Literal["shared", "own"] = "shared",
    ):
        super().__init__(
            task,
            class_weights=class_weights,
            sides=True,
            threshold=0.5 if threshold is None else threshold,
            tuned=tuned,
            pooling=pooling,
            pooler=pooler,
        )
        self._indicators: bool | None = None

    def _refused(self) -> list[str]:
        if not self.tunes or self.metrics[0] in SEVERAL:
            return []
        return [
            f"task {self.task.name!r}: `threshold: tuned` finds the thresholds of several labels for "
            f"{' and '.join(SEVERAL)}; the first metric is {self.metrics[0]!r}: put one of them first, or give numbers"
        ]

    def decided(self) -> list[str]:
        """All labels."""
        return list(self.labels or [])

    def log_odds(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, labels]."""
        return np.asarray(predictions, dtype=np.float64)

    def _search(self, odds: np.ndarray, references: Sequence[Any]) -> list[float]:
        return tune_several(odds, np.asarray(references), self.metrics[0])

    def begin(self, module: nn.Module, labels: Sequence[Any], *, fresh: bool) -> None:
        """Take the weights of both sides of each label."""
        known = [label for label in labels if label is not None]
        if self.class_weights is not None and known:
            having = np.sum(known, axis=0).astype(int)
            counts = np.stack([len(known) - having, having], -1)
            self.record(class_weights=self.class_weights.learn(counts, self.labels or []))

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
        lists = [values for values in rows[column] if isinstance(values, (list, tuple)) and values]
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
        """Sum over rows of the mean binary cross entropy over labels, each times its side's weight."""
        labels = target["labels"].float()
        sides = self.class_weights.table(self.labels or [], logits) if self.class_weights else None
        weights = None if sides is None else torch.where(labels > 0.5, sides[:, 1], sides[:, 0])
        every = functional.binary_cross_entropy_with_logits(logits.float(), labels, weight=weights, reduction="none")
        return every.mean(-1).sum()

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row the logits [labels]."""
        return list(logits.detach().float().cpu().numpy())

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[list[int]]:
        """Lists of 0 and 1, one per label."""
        if self.thresholds is None or not len(predictions):
            return []
        return self.thresholds.decide(self.log_odds(predictions), self.decided()).tolist()

    def undecided(self, predictions: Sequence[Any], rows: Any) -> list[list[int]]:
        """Lists of 0 and 1 at a threshold of 0.5."""
        return at_least(self.log_odds(predictions), 0.5).tolist()

    def references(self, labels: Sequence[Any], rows: Any) -> list[Any]:
        """Lists of 0 and 1, one per label."""
        return [[int(x) for x in label] for label in labels]

    def in_words(self, decoded: Sequence[int]) -> list[str]:
        """The names given."""
        return [name for name, on in zip(self.labels or [], decoded, strict=True) if on]

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The names given, and every label's probability."""
        return self.answers([[(prediction, row)]])[0]

    def answers(self, inputs: Sequence[Sequence[tuple[Any, Mapping[str, Any]]]]) -> list[dict[str, Any]]:
        """As :meth:`answer`, for many inputs."""
        logits, names = np.stack([parts[0][0] for parts in inputs]), self.labels or []
        rounded = (1 / (1 + np.exp(-logits))).astype(np.float64).round(6).tolist()
        return [
            {"labels": self.in_words(given), "scores": dict(zip(names, scores, strict=True))}
            for given, scores in zip(self.decode(logits, None), rounded, strict=True)  # type: ignore[arg-type]
        ]

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
