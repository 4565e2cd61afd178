"""How each kind of head learns from a teacher: what is kept of a teacher's logits, and the loss against it.

A row has one item or several, the parts of it that are compared: the row itself, its choices, its words. Of each item
the teacher's numbers are kept, and if asked for the hidden state that its head reads; NaN where the teacher saw none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl.heads.base import Head, PlacedRow
from nlp_mtl.heads.multi_label import MultiLabel
from nlp_mtl.heads.multiple_choice import MultipleChoice, in_rows
from nlp_mtl.heads.pooled import PooledHead
from nlp_mtl.heads.regression import Regression
from nlp_mtl.heads.sequence_classification import SequenceClassification
from nlp_mtl.heads.token_classification import TokenClassification
from nlp_mtl.packing import Packed

Told = Mapping[str, Any]


def softened(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """[…]: KL divergence of the student's class probabilities from the teacher's, both softened.

    Args:
        teacher, student: logits […, classes]; −inf in both where there is no class.
        temperature: what both are divided by.

    Example:
        >>> softened(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0]), 2.0).abs().item() < 1e-6
        True
    """
    ours = (student.float() / temperature).log_softmax(-1)
    theirs = (teacher.float() / temperature).log_softmax(-1)
    return torch.where(teacher == float("-inf"), 0.0, theirs.exp() * (theirs - ours)).sum(-1)


class Kind:
    """One kind of head: one item per row, unless a subclass says otherwise."""

    alone = True  # whether one text by itself has something to tell

    def split(self, head: Head, scores: Tensor, target: Told, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """Of each row [items, numbers], from a head's logits for the rows."""
        return list(scores.float().cpu().numpy().reshape(len(rows), 1, -1))

    def states(self, head: Any, module: nn.Module, packed: Packed, target: Told) -> Tensor:
        """[items, hidden]: what the head reads of each item."""
        return head.vectors(module, packed, target["sequences"])

    def split_states(self, states: Tensor, target: Told, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """Of each row [items, hidden]."""
        return list(states.float().cpu().numpy()[:, None])

    def seen(self, row: PlacedRow) -> np.ndarray:
        """[items] of bools: those of a row's items that the head reads."""
        return np.ones(1, dtype=bool)

    def no_label(self, row: PlacedRow, example: Any) -> Any:
        """What stands in the place of the label of a row that has none, beside rows like one with `example`."""
        return np.zeros_like(example)

    def units(self, told: Told, target: Told) -> int:
        """What the loss is averaged over: rows, or words, with a label or a teacher."""
        return len(target["sequences"])

    def own(self, head: Head, scores: Tensor, target: Told) -> tuple[Tensor | None, Tensor | None]:
        """The summed losses of the units that have a label and a teacher, and of those that have a label alone."""
        if "labels" not in target:
            return None, None
        both, alone = target["teacher"]["both"], target["teacher"]["alone"]
        if both is None:
            return head.loss(scores, target), None
        labels = target["labels"]
        rest = None if alone is None else head.loss(scores[alone], {"labels": labels[alone]})
        return head.loss(scores[both], {"labels": labels[both]}), rest

    def taught_rows(self, known: Tensor, target: Told) -> Tensor:
        """[rows] of bools: those that have a teacher, of the items that are known to one."""
        return known

    def loss(self, head: Any, scores: Tensor, target: Told, temperature: float) -> Tensor:
        """The summed loss against the teacher's numbers."""
        rows, values = target["teacher"]["known"], target["teacher"]["values"]
        if rows is not None:
            scores, values = scores[rows], values[rows]
        return self.between(head, values, scores, temperature).sum()

    def between(self, head: Any, values: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """[items]: the loss of each, times the squared temperature, which keeps gradients of one size."""
        return softened(values, scores, temperature) * temperature**2

    def share_of_state(self, target: Told) -> Tensor | None:
        """[items]: how much of a unit each item is; None for a whole one."""
        return None


class Labels(Kind):
    """Every label by itself: the mean of binary KL divergences over labels."""

    def between(self, head: Any, values: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """See :meth:`Kind.between`."""
        theirs, ours = (torch.stack([z.float(), torch.zeros_like(z.float())], -1) for z in (values, scores))
        return softened(theirs, ours, temperature).mean(-1) * temperature**2


class Numbers(Kind):
    """The squared difference over what the head's own squared error is divided by; temperature is of no account."""

    def between(self, head: Any, values: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """See :meth:`Kind.between`."""
        return (scores.float() - values[:, 0].float()).square() / (head.variance or 1.0)


class Choices(Kind):
    """KL divergence over a row's choices."""

    alone = False

    def split(self, head: Head, scores: Tensor, target: Told, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """See :meth:`Kind.split`."""
        counts = target["counts"].tolist()
        return [row[:count, None] for row, count in zip(scores.float().cpu().numpy(), counts, strict=True)]

    def split_states(self, states: Tensor, target: Told, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """See :meth:`Kind.split_states`."""
        return [part.numpy() for part in states.float().cpu().split(target["counts"].tolist())]

    def seen(self, row: PlacedRow) -> np.ndarray:
        """See :meth:`Kind.seen`."""
        return np.ones(len(row.sequences), dtype=bool)

    def units(self, told: Told, target: Told) -> int:
        """See :meth:`Kind.units`."""
        return len(target["counts"])

    def loss(self, head: Any, scores: Tensor, target: Told, temperature: float) -> Tensor:
        """See :meth:`Kind.loss`."""
        told = target["teacher"]
        values = in_rows(told["values"][:, 0], target["counts"])
        if told["known"] is not None:
            rows = self.taught_rows(told["known"], target)
            scores, values = scores[rows], values[rows]
        return self.between(head, values, scores, temperature).sum()

    def taught_rows(self, known: Tensor, target: Told) -> Tensor:
        """See :meth:`Kind.taught_rows`."""
        return in_rows(known.float(), target["counts"])[:, 0] > 0

    def share_of_state(self, target: Told) -> Tensor | None:
        """See :meth:`Kind.share_of_state`."""
        counts = target["counts"]
        return (1 / counts.float()).repeat_interleave(counts)


class Words(Kind):
    """KL divergence word by word."""

    def split(self, head: Head, scores: Tensor, target: Told, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """See :meth:`Kind.split`."""
        parts = scores.float().cpu().split(target["counts"].tolist())
        return [_placed(part.numpy(), row) for part, row in zip(parts, rows, strict=True)]

    def states(self, head: Any, module: nn.Module, packed: Packed, target: Told) -> Tensor:
        """See :meth:`Kind.states`."""
        return packed.hidden[target["positions"]]

    def split_states(self, states: Tensor, target: Told, rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """See :meth:`Kind.split_states`."""
        return self.split(Head, states, target, rows)  # type: ignore[arg-type]

    def seen(self, row: PlacedRow) -> np.ndarray:
        """See :meth:`Kind.seen`."""
        return np.asarray(row.columns["word_positions"]) >= 0

    def no_label(self, row: PlacedRow, example: Any) -> Any:
        """See :meth:`Kind.no_label`."""
        return np.full(len(row.columns["word_positions"]), -1)

    def units(self, told: Told, target: Told) -> int:
        """See :meth:`Kind.units`."""
        known = told["known"]
        if known is None:
            return len(told["values"])
        return int((known | (target["labels"] >= 0)).sum() if "labels" in target else known.sum())

    def own(self, head: Head, scores: Tensor, target: Told) -> tuple[Tensor | None, Tensor | None]:
        """See :meth:`Kind.own`: words without a label are left out by the head itself."""
        known = target["teacher"]["known"]
        if "labels" not in target or known is None:
            return (head.loss(scores, target) if "labels" in target else None), None
        both, alone = ({"labels": target["labels"].where(some, -1)} for some in (known, ~known))
        return head.loss(scores, both), head.loss(scores, alone)


def _placed(read: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
    places = np.asarray(row["word_positions"])
    whole = np.full((len(places), read.shape[1]), np.nan, dtype=np.float32)
    whole[places >= 0] = read
    return whole


_KINDS: dict[type[Head], Kind] = {
    SequenceClassification: Kind(),
    MultiLabel: Labels(),
    Regression: Numbers(),
    MultipleChoice: Choices(),
    TokenClassification: Words(),
}


def kind_of(head: Head) -> Kind | None:
    """The kind of a head; None where it can't learn from a teacher.

    Example:
        >>> from nlp_mtl.heads import make_heads
        >>> from nlp_mtl.tasks import load_tasks
        >>> type(kind_of(make_heads(load_tasks(["conll2003"]))["conll2003"])).__name__
        'Words'
    """
    return next((kind for made, kind in _KINDS.items() if isinstance(head, made)), None)


def why_untaught(head: Head) -> str:
    """Why a head can't learn from a teacher's logits; empty if it can."""
    if kind_of(head) is not None:
        return ""
    if head.writes:
        return "it writes word by word; predict texts with the teacher and train on them instead"
    if type(head).corrupt is not Head.corrupt:
        return "it hides other words each time, so that a teacher's outputs can't be computed before"
    return f"how outputs of {head.task.head_name} are compared is not known"


def columns_of(head: Head, teacher: Head) -> list[int] | None:
    """Which of a teacher's numbers stands for each of the head's labels; None where they are not by label.

    Raises:
        ValueError: other labels.
    """
    if isinstance(head, (Regression, MultipleChoice)):
        return None
    ours, theirs = list(head.labels or ()), list(teacher.labels or ())
    if set(ours) != set(theirs):
        raise ValueError(f"its labels are {', '.join(theirs[:6])}, this run's are {', '.join(ours[:6])}")
    return [theirs.index(label) for label in ours]


def reads_alone(head: Head) -> bool:
    """Whether a head can say something of any one text, whatever task it is a row of."""
    kind = kind_of(head)
    return kind is not None and kind.alone and isinstance(head, (PooledHead, TokenClassification))
