"""Drawing domains together: the distance between their vectors is a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl import distances
from nlp_mtl.errors import ConfigError
from nlp_mtl.heads import vanilla
from nlp_mtl.heads.base import Columns
from nlp_mtl.heads.domain_adversarial import check_domains, several_domains
from nlp_mtl.heads.labels import Where, class_numbers, names_in
from nlp_mtl.heads.own import has_own_decoder
from nlp_mtl.heads.pooled import PooledHead, Pooling, family_pooling
from nlp_mtl.heads.vanilla import StandIn
from nlp_mtl.layout import few_shapes
from nlp_mtl.metrics.domains import MOST, mean_distance
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.registry import heads
from nlp_mtl.taskfile import Task

METRICS = {"coral": "coral_distance", "mmd": "mmd"}


class Vectors(nn.Module):
    """Gives what a classifier of the family would read; it has no parameters of its own.

    Args:
        encoder: the shared encoder.
        pooling: ``cls``, ``last`` or ``mean``, what the family's class reads.
        pooler: see :class:`nlp_mtl.heads.vanilla.StandIn`.
    """

    base_model_prefix = "encoder"

    def __init__(self, encoder: nn.Module, pooling: str, pooler: str):
        super().__init__()
        self.encoder, self.family_pooling = StandIn(encoder, pooler), pooling

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        """[rows, 1, hidden] → `logits` [rows, hidden]."""
        found = self.encoder(inputs_embeds=inputs_embeds)
        pooled = found.pooler_output
        return SimpleNamespace(logits=found.last_hidden_state[:, 0] if pooled is None else pooled)


@heads.register("domain_alignment")
class DomainAlignment(PooledHead):
    """Draws domains together: its loss is the distance between their vectors, CORAL or MMD.

    It has no weights. The loss of a pass is `weight` times the mean distance over the pairs of domains in it, times the
    pass's rows, so that of a step it is a mean over passes weighted by rows. A distance belongs to the rows it is made
    of: cutting a step into micro-batches, passes or processes changes it, and a pass with fewer than 2 rows of all but
    one domain adds 0. So give it large passes.

    Args:
        task: the task; its target is the domain, as ``dataset: {path: tasks}`` gives it.
        distance: ``coral``, between covariances, or ``mmd``, under Gaussian kernels.
        weight: what the distance is multiplied by, from 0. CORAL is a mean over the squares of all pairs of
            dimensions, and small: give it a weight of some thousands.
        widths: of MMD's kernels, as multiples of the median squared distance.
        pooling: see :class:`PooledHead`: take what the other tasks' heads read.

    Raises:
        ConfigError: arguments out of range, one domain only.

    Relations: `domain_adversarial` learns what tells domains apart, and is not told it. A regularizer looks at
    parameters alone; this looks at texts, and is a task.

    cost: the texts of all domains go through the encoder once more; MMD compares all pairs of a pass's rows.
    """

    paper = "Sun & Saenko, 2016, arXiv:1607.01719; Long et al., 2015, arXiv:1502.02791"
    auto_class = "AutoModelForSequenceClassification"
    default_metrics: ClassVar[tuple[str, ...]] = ("coral_distance",)
    for_model: ClassVar[tuple[str, ...]] = (*PooledHead.for_model, "distance", "weight", "widths")
    auxiliary = True
    by_labels = False

    def __init__(
        self,
        task: Task,
        distance: Literal["coral", "mmd"] = "coral",
        weight: float = 1.0,
        widths: Sequence[float] = distances.WIDTHS,
        pooling: Pooling = "family",
    ):
        super().__init__(task, pooling)
        mistakes = several_domains(task)
        if distance not in METRICS:
            mistakes.append(f"task {task.name!r}: `distance` is {' or '.join(METRICS)}, found {distance!r}")
        if not _is_number(weight) or weight < 0:
            mistakes.append(f"task {task.name!r}: `weight` is a number from 0, found {weight!r}")
        if not isinstance(widths, (list, tuple)) or not widths or not all(_is_number(w) and w > 0 for w in widths):
            mistakes.append(f"task {task.name!r}: `widths` are numbers above 0, found {widths!r}; e.g. [0.5, 1, 2]")
        if mistakes:
            raise ConfigError(mistakes)
        self.distance, self.weight = distance, float(weight)
        self._measure: distances.Distance = distances.coral
        self._trained: distances.Distance = distances.coral
        if distance == "mmd":
            self._measure = partial(distances.mmd, widths=tuple(widths))
            self._trained = partial(distances.mmd, widths=tuple(widths), unbiased=True)
        self.metrics = list(task.metrics or [METRICS[distance]])
        self.exportable, self.why_not = False, "it has no weights, and predicts nothing"

    # ------------------------------------------------------------------------------------------------------ data

    def set_labels(self, names: Sequence[str] | None) -> None:
        """The domains, of which there are two at least."""
        super().set_labels(names)
        check_domains(self.task, self.labels)

    def label_names(self, rows: Any, column: str) -> list[str] | None:
        """Names of a ClassLabel column, or the sorted distinct values."""
        return list(getattr(rows.features[column], "names", None) or names_in(rows[column], self.task.name))

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Numbers of the domains."""
        return class_numbers(values, names, self.labels or [], where)

    def ask(self, row: Mapping[str, Any], tokenizer: Any) -> dict[str, Any] | None:
        """Nothing: a text alone has no distance."""
        return None

    def lacking(self, tokenizer: Any) -> str:
        """Others to be compared with."""
        return "texts of several domains to compare"

    # ----------------------------------------------------------------------------------------------------- model

    def build(self, encoder: nn.Module, *, source: Any = None, seed: int = 0) -> nn.Module:
        """A module without parameters, which reads as the family's class for sequences does."""
        return Vectors(encoder, _family_way(encoder, self.auto_class), self.pooler())

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """[rows, hidden]: the vectors."""
        states = self.pooled(module, packed, target["sequences"])
        return self.logits_of(module, few_shapes(states))[: len(states)]

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """The distance between the rows' domains, times `weight` and the number of rows."""
        with torch.autocast(logits.device.type, enabled=False):
            found = distances.between_domains(logits.float(), target["labels"], self._trained)
        return self.weight * len(logits) * found

    # -------------------------------------------------------------------------------------------------- decoding

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[np.ndarray]:
        """Per row its vector."""
        return list(logits.detach().float().cpu().numpy())

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[Any]:
        """The vectors."""
        return list(predictions)

    def in_words(self, decoded: Any) -> list[float]:
        """The vector as a list."""
        return [round(float(value), 6) for value in decoded]

    def score(
        self, decoded: Sequence[Any], references: Sequence[Any], given: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """The distance over all rows, with the head's own widths, without `weight`; and other metrics."""
        own, found = METRICS[self.distance], super().score(decoded, references, given)
        if own in found:
            most = MOST if self.distance == "mmd" else None
            found[own] = mean_distance(own, decoded, references, self._measure, most=most)
        return found

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """The same vector for all rows."""
        return [np.zeros(1)] * len(labels)

    def answer(self, prediction: np.ndarray, row: Mapping[str, Any]) -> dict[str, Any]:
        """The vector, for who asks for it."""
        return {"vector": self.in_words(prediction)}


def _family_way(encoder: nn.Module, auto_class: str) -> str:
    """Which vector of a sequence the family's class reads."""
    if has_own_decoder(encoder) or not vanilla.has_class(auto_class, encoder):
        return "mean"
    import transformers

    with torch.device("meta"):
        return family_pooling(getattr(transformers, auto_class).from_config(base_of(encoder).config))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
