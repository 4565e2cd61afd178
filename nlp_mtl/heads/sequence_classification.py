"""Heads that give one answer per text or pair: classes, numbers, several labels at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads.base import Columns, Head, Where, class_numbers, complain, name_of, names_in
from nlp_mtl.packing import Packed
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task

Pooling = Literal["family", "mean", "cls", "last"]


class PooledHead(Head):
    """Base of heads that read one vector per sequence.

    Args:
        task: the task.
        pooling: ``family``, as the vanilla class does it (first token for encoders, last for decoders, with its own
            pooler if it has one), which can be exported; ``mean`` of the tokens, ``cls`` (first) or ``last`` token,
            straight into the classifier.
        pooler: for families with a pooler inside the encoder (BERT, ALBERT): ``shared`` by all tasks, or ``own``.
    """

    for_model = ("pooling", "pooler", "variance", "threshold")

    def __init__(self, task: Task, pooling: Pooling = "family", pooler: Literal["shared", "own"] = "shared"):
        super().__init__(task)
        if pooling not in ("family", "mean", "cls", "last"):
            raise ConfigError(f"task {task.name!r}: `pooling` is family, mean, cls or last, found {pooling!r}")
        if pooler not in ("shared", "own"):
            raise ConfigError(f"task {task.name!r}: `pooler` is shared or own, found {pooler!r}")
        self.pooling, self._pooler = pooling, pooler
        if pooling != "family":
            self.exportable = False
            self.why_not = f"`pooling: {pooling}` is not what the vanilla class computes"

    def pooler(self) -> str:
        """The encoder's pooler for the family's own pooling, else none."""
        return self._pooler if self.pooling == "family" else "none"

    def pooled(self, module: nn.Module, packed: Packed, sequences: Tensor) -> Tensor:
        """[…, 1, hidden]: the vectors of the given sequences, as sequences of one token."""
        way = self.pooling if self.pooling != "family" else family_pooling(module)
        read = {"cls": packed.firsts, "last": packed.lasts, "mean": packed.means}[way]
        return read(sequences).unsqueeze(-2)

    def logits_of(self, module: nn.Module, states: Tensor) -> Tensor:
        """Run the vanilla class on sequences of one token [rows, 1, hidden]."""
        return in_full(module, states).logits

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows, labels]."""
        return self.logits_of(module, self.pooled(module, packed, target["sequences"]))


def in_full(module: nn.Module, states: Tensor) -> Any:
    """Run a vanilla class on vectors in float32 where it has such weights, also under autocast.

    It is little work, and bfloat16 would leave three digits of a regression's output.
    """
    ids = torch.zeros(states.shape[:-1], dtype=torch.long, device=states.device)
    full = all(parameter.dtype == torch.float32 for parameter in module.parameters())
    with torch.autocast(states.device.type, enabled=not full and torch.is_autocast_enabled(states.device.type)):
        return module(input_ids=ids, inputs_embeds=states.float() if full else states)


def family_pooling(module: nn.Module) -> str:
    """What the vanilla class reads of a sequence: mean (ModernBERT can), last (decoders) or cls."""
    own = getattr(module, "family_pooling", None)
    if own is not None:
        return str(own)
    if getattr(module.config, "classifier_pooling", "cls") == "mean":
        return "mean"
    return "last" if hasattr(module, "score") else "cls"


@heads.register("sequence_classification")
class SequenceClassification(PooledHead):
    """One class per text or pair."""

    auto_class = "AutoModelForSequenceClassification"
    default_metrics = ("accuracy",)

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
        scores = _softmax(prediction)
        best, names = int(scores.argmax()), self.labels or []
        every = {name: round(float(score), 6) for name, score in zip(names, scores, strict=True)}
        return {"label": names[best], "score": every[names[best]], "scores": every}

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[int]:
        """The most frequent class of the training rows."""
        return [_most_frequent(train_labels)] * len(labels)


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
            said = {"name": self.spec} if isinstance(self.spec, str) else dict(self.spec)
            self.spec = {**said, "variance": self.variance}
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


def _last_linear(module: nn.Module) -> nn.Linear | None:
    found = [part for part in module.modules() if isinstance(part, nn.Linear) and part.out_features == 1]
    return found[-1] if found else None


def _zeros_and_ones(lists: Sequence[Sequence[Any]]) -> bool:
    return all(x in (0, 1) and not isinstance(x, str) for value in lists for x in value)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max())
    return exponent / exponent.sum()


def _most_frequent(labels: Sequence[Any]) -> Any:
    counted = Counter(label for label in labels if label is not None)
    return counted.most_common(1)[0][0] if counted else 0
