"""One number per text or pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError
from nlp_mtl.heads.base import Columns
from nlp_mtl.heads.labels import Where, complain
from nlp_mtl.heads.pooled import PooledHead, Pooling
from nlp_mtl.packing import Packed
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task


@heads.register("regression")
class Regression(PooledHead):
    """One number per text or pair.

    The loss is the squared error over the variance of the training labels, and the output starts at their mean. The
    plain squared error has the square of the label's unit: on STS-B (0 to 5) its gradient was twenty times that of the
    classifiers beside it, and drowned them. Alone, a task learns the same up to its learning rate.

    Args:
        task: the task.
        variance: what the squared error is divided by; default the variance of the training labels, 1 for the plain
            squared error.
        pooling, pooler: see :class:`PooledHead`.
    """

    auto_class = "AutoModelForSequenceClassification"
    default_metrics = ("pearson", "spearman")
    label_type = "float32"
    _unlabelled: bool | None = None

    def __init__(
        self,
        task: Task,
        variance: float | None = None,
        pooling: Pooling = "family",
        pooler: Literal["shared", "own"] = "shared",
    ):
        super().__init__(task, pooling, pooler)
        if variance is not None and not variance > 0:
            raise ConfigError(f"task {task.name!r}: `variance` is a number above 0, found {variance!r}")
        self.variance = variance

    def begin(self, module: nn.Module, labels: Sequence[Any], *, fresh: bool) -> None:
        """Take the labels' variance; start the output at their mean."""
        known = [label for label in labels if label is not None]
        if self.variance is None and known:
            self.variance = float(np.var(known)) or 1.0
            self.record(variance=self.variance)
        if fresh and known and (last := _last_linear(module)) is not None and last.bias is not None:
            with torch.no_grad():
                last.bias.fill_(float(np.mean(known)))

    def look_at(self, values: Iterable[Any]) -> None:
        """Whether the split is an unlabelled one, as the test splits of GLUE are."""
        self._unlabelled = all(value is None or value == -1 for value in values)

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Floats; None and NaN mean "no label", and so does −1 in a column that holds nothing else."""
        numbers: list[float | None] = []
        mistakes = []
        for row, value in enumerate(values):
            try:
                number = None if value is None else float(value)
            except (TypeError, ValueError):
                mistakes.append((row, f"target {value!r} is not a number"))
                number = None
            if number is not None and np.isinf(number):
                mistakes.append((row, f"target {value!r} is not a finite number"))
            numbers.append(None if number is None or np.isnan(number) else number)
        complain(where, mistakes)
        if self._unlabelled is None:
            self.look_at(numbers)
        return [None] * len(numbers) if self._unlabelled else numbers

    def config_changes(self) -> dict[str, Any]:
        """One output."""
        return {
            "num_labels": 1,
            "id2label": {0: self.task.name},
            "label2id": {self.task.name: 0},
            "problem_type": "regression",
        }

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows]."""
        return super().forward(module, packed, target).squeeze(-1)

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of squared errors over rows, over the variance of the training labels."""
        error = functional.mse_loss(logits.float(), target["labels"].float(), reduction="sum")
        return error / (self.variance or 1.0)

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[float]:
        """Per row the number."""
        return logits.detach().float().cpu().tolist()

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[float]:
        """The numbers themselves."""
        return [float(prediction) for prediction in predictions]

    def answer(self, prediction: float, row: Mapping[str, Any]) -> dict[str, Any]:
        """The number."""
        return {"value": round(float(prediction), 6)}

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[float]:
        """The mean of the training targets."""
        known = [label for label in train_labels if label is not None]
        return [float(np.mean(known)) if known else 0.0] * len(labels)


def _last_linear(module: nn.Module) -> nn.Linear | None:
    found = [part for part in module.modules() if isinstance(part, nn.Linear) and part.out_features == 1]
    return found[-1] if found else None
