"""The contract of every head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl import metrics
from nlp_mtl.errors import DataError, UnsupportedError
from nlp_mtl.heads import vanilla
from nlp_mtl.packing import Packed
from nlp_mtl.taskfile import Task

Columns = Mapping[str, Sequence[Any]]


@dataclass
class PlacedRow:
    """A row in a mixed batch.

    Attributes:
        columns: what :meth:`Head.tokenize` made of it.
        label: what :meth:`Head.encode_labels` made of its target; None if it has none.
        sequences: [k], the numbers of its sequences in the batch.
        starts: [k], the index of the first token of each.
    """

    columns: Mapping[str, Any]
    label: Any
    sequences: np.ndarray
    starts: np.ndarray


class Head:
    """One kind of task: how it tokenizes, collates, computes loss and logits, decodes, and is scored.

    A head object belongs to one task and holds no tensors; the module it builds does. Rows are dictionaries of columns
    on the way in, and one prediction per row on the way out. Class attributes: `auto_class`, the vanilla class;
    `needs_labels`, whether it learns from labelled rows only; `label_type` and `label_is_list`, how labels are stored;
    `keeps_target`, whether the target column is kept for scoring; `for_model`, arguments that change nothing of how
    rows are read.

    Args:
        task: the task.
    """

    auto_class: ClassVar[str] = ""
    default_metrics: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = True
    label_type: ClassVar[str] = "int32"
    label_is_list: ClassVar[bool] = False
    keeps_target: ClassVar[bool] = False
    for_model: ClassVar[tuple[str, ...]] = ()

    def __init__(self, task: Task):
        self.task = task
        self.spec: Any = task.head
        self.labels: list[str] | None = task.labels
        self.metrics = list(task.metrics or self.default_metrics)
        self.exportable, self.why_not = True, ""

    # ------------------------------------------------------------------------------------------------------ data

    def reading(self) -> tuple[Any, ...]:
        """What makes two tasks tokenize the same rows in the same way; such tasks share rows in a batch."""
        return ("text", *self.task.inputs)

    def data_spec(self) -> dict[str, Any]:
        """The head's name and those of its arguments that change what is made of rows."""
        said = {"name": self.spec} if isinstance(self.spec, str) else dict(self.spec)
        return {key: value for key, value in said.items() if key not in self.for_model}

    def needed_columns(self) -> list[str]:
        """Input columns that a row must have."""
        return list(self.task.inputs)

    def tokenize(self, rows: Columns, tokenizer: Any, max_length: int, where: Where) -> dict[str, list[Any]]:
        """Token ids of rows.

        Args:
            rows: the needed columns, each [rows].
            tokenizer: a fast tokenizer.
            max_length: at most so many tokens per sequence.
            where: task and split, for messages.

        Returns:
            `input_ids` [rows] of the concatenated sequences of each row, `lengths` [rows] of lists, `truncated` [rows]
            of bools, `source` [rows]: the number of the given row; and what else the head keeps for later. The number
            of rows may grow (long documents in windows).

        Raises:
            DataError: rows that can't be read; names them.
        """
        from nlp_mtl.heads.texts import tokenize_texts

        return tokenize_texts(rows, self.task.inputs, tokenizer, max_length, where)

    def set_labels(self, names: Sequence[str] | None) -> None:
        """Label names found in the data, for a task that lists none."""
        if self.labels is None and names is not None:
            self.labels = list(names)

    def label_names(self, rows: Any, column: str) -> list[str] | None:
        """Label names in the data: those of a ClassLabel column, else the distinct values; None if it has none."""
        return None

    def look_at(self, values: Iterable[Any]) -> None:
        """See a split's whole target column before its batches are encoded, for what a single batch can't tell."""

    def encode_labels(
        self, values: Sequence[Any], names: Sequence[str] | None, rows: Columns, where: Where
    ) -> list[Any]:
        """Targets as numbers; None for a row without one.

        Args:
            values: the target column.
            names: names of the numbers in `values`, if the data has them (ClassLabel).
            rows: the input columns, for targets that must fit them.
            where: task and split, for messages.

        Raises:
            DataError: labels of the wrong type or outside the label list; names the rows.
        """
        raise NotImplementedError

    def place_labels(self, labels: Sequence[Any], tokenized: Columns) -> list[Any]:
        """The labels of tokenized rows, from those of the rows they come from."""
        return [labels[source] for source in tokenized["source"]]

    def collate(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """The task's part of a mixed batch: where its rows are and, where there are labels, what they are."""
        sequences = torch.from_numpy(np.stack([row.sequences for row in rows])).squeeze(1)
        return {"sequences": sequences, **self._labels_of(rows)}

    def _labels_of(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        if any(row.label is None for row in rows):
            return {}
        labels = torch.from_numpy(np.asarray([row.label for row in rows]))
        return {"labels": labels.float() if labels.is_floating_point() else labels.long()}

    def units(self, target: Mapping[str, Tensor]) -> int:
        """What the loss is averaged over: labelled rows, or labelled tokens."""
        return int(target["labels"].shape[0]) if "labels" in target else 0

    def corrupt(
        self, ids: np.ndarray, columns: Mapping[str, Any], seed: Sequence[int]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Change a row's token ids before they are packed, and note how (masked LM); by default nothing."""
        return ids, {}

    # ----------------------------------------------------------------------------------------------------- model

    def config_changes(self) -> dict[str, Any]:
        """What the vanilla class's config needs: number and names of labels."""
        names = self.labels or []
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
        }

    def build(self, encoder: nn.Module, *, source: Any = None, seed: int = 0) -> nn.Module:
        """The module: the family's own class without its encoder, or one of ours, then marked not exportable."""
        if not vanilla.has_class(self.auto_class, encoder):
            return self.build_own(encoder, seed)
        return vanilla.build(
            self.auto_class,
            encoder,
            self.config_changes(),
            source=source,
            pooler=self.pooler(),
            name=self.task.head_key,
            seed=seed,
        )

    def build_own(self, encoder: nn.Module, seed: int) -> nn.Module:
        """For families without the class; refused unless a head says otherwise."""
        from nlp_mtl.packing import base_of

        family = base_of(encoder).config.model_type
        raise UnsupportedError(
            f"task {self.task.name!r}: the family {family!r} has no {self.auto_class}, and none can be made up; "
            "choose another encoder or leave the task out"
        )

    def pooler(self) -> str:
        """Which pooler the stand-in encoder uses; see :class:`nlp_mtl.heads.vanilla.StandIn`."""
        return "shared"

    def begin(self, module: nn.Module, labels: Sequence[Any], *, fresh: bool) -> None:
        """See the training labels before the first step; by default nothing comes of it.

        Args:
            module: what :meth:`build` made.
            labels: the training rows' labels, None where there is none.
            fresh: whether the module was never trained, so that it may be started from the labels.
        """

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """Logits for the task's rows."""
        raise NotImplementedError

    def loss(self, logits: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """The SUM of the loss over the task's units, in float32; the trainer divides by their count."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------- decoding

    def predict(self, logits: Tensor, target: Mapping[str, Tensor]) -> list[Any]:
        """One small prediction per row, on the CPU."""
        raise NotImplementedError

    def answer(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a user wants to read: label names, entities with offsets, spans of text."""
        raise NotImplementedError

    def ask(self, row: Mapping[str, Any], tokenizer: Any) -> dict[str, Any] | None:
        """What a row needs besides its tokens to be answered; None if it asks nothing of this head."""
        return {}

    def answer_of(self, parts: Sequence[tuple[Any, Mapping[str, Any]]]) -> dict[str, Any]:
        """The answer to one input from the predictions and columns of its rows; usually there is one."""
        prediction, row = parts[0]
        return self.answer(prediction, row)

    def references(self, labels: Sequence[Any], rows: Any) -> list[Any]:
        """Labels in the form the metrics take; `rows` gives the other columns kept by :meth:`tokenize`."""
        return list(labels)

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[Any]:
        """Predictions in the form the metrics take."""
        raise NotImplementedError

    def in_words(self, decoded: Any) -> Any:
        """One decoded prediction as a user reads it: names for class numbers; by default as it is."""
        return decoded

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """What a baseline that reads nothing would predict, in the form the metrics take."""
        raise NotImplementedError

    def score(self, decoded: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """The task's metrics; the first one decides."""
        return metrics.score(self.metrics, decoded, references, labels=self.labels)


def name_of(value: Any) -> Any:
    """A label value as a name: 1 and, as a CSV column with gaps gives it, 1.0 are "1"; fractions and None stay."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and value % 1):
        return value
    return str(int(value))


def names_in(values: Iterable[Any], task: str) -> list[str]:
    """The distinct label values as names, numbers by size, and −1 for "no label" left out.

    Raises:
        DataError: −1 beside other labels, which could also be a label.

    Example:
        >>> names_in([10, 2, 1, 2], "demo")
        ['1', '2', '10']
    """
    found = {name_of(v) for v in values if isinstance(v, (str, int, float)) and not (isinstance(v, float) and v % 1)}
    if "-1" in found and len(found) > 1:
        raise DataError(
            f"task {task!r}: the target holds -1 beside {', '.join(sorted(found - {'-1'})[:6])}, and no `labels` are "
            "listed; is -1 a label or its absence? List `labels`, or give names with `prepare: map_labels`"
        )
    return sorted(found - {"-1"}, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def class_numbers(
    values: Sequence[Any],
    given: Sequence[str] | None,
    labels: Sequence[str],
    where: Where,
    rows: Sequence[int] | None = None,
) -> list[int | None]:
    """Class numbers of label values: names, or numbers into the data's own names or the label list.

    Args:
        values: names or numbers; None and −1 mean "no label".
        given: the data's own names of the numbers (ClassLabel), if it has them.
        labels: the task's label names.
        where: task and split, for messages.
        rows: the row of each value, if not 0, 1, …

    Raises:
        DataError: with the rows.
    """
    numbers: list[int | None] = []
    mistakes = []
    known = {name: number for number, name in enumerate(labels)}
    by_name = given is not None and set(given) == set(labels)
    if given is not None and not by_name and len(given) != len(labels):
        raise DataError(
            f"{where}: the data has {len(given)} labels ({', '.join(map(str, given[:6]))}…), the task {len(labels)} "
            f"({', '.join(labels[:6])}…); correct `labels`"
        )
    for place, value in enumerate(values):
        row = place if rows is None else rows[place]
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value == -1):
            numbers.append(None)
        elif isinstance(value, str):
            if value not in known:
                mistakes.append((row, f"label {value!r} is not in the label list ({', '.join(labels[:8])}…)"))
            numbers.append(known.get(value, 0))
        elif not isinstance(value, (int, float)):
            mistakes.append((row, f"label {str(value)[:40]!r} is neither a name nor a number"))
            numbers.append(0)
        elif isinstance(value, float) and not value.is_integer():
            mistakes.append((row, f"label {value} is a fraction; a classifier needs classes (head: regression?)"))
            numbers.append(0)
        elif not 0 <= int(value) < len(labels):
            mistakes.append((row, f"label {value} is outside 0 … {len(labels) - 1}"))
            numbers.append(0)
        else:
            numbers.append(known[given[int(value)]] if given is not None and by_name else int(value))
    complain(where, mistakes)
    return numbers


@dataclass(frozen=True)
class Where:
    """Which rows are looked at, for messages: task, split, and the number of the first row."""

    task: str
    split: str
    first: int = 0

    def __str__(self) -> str:
        return f"task {self.task!r}, split {self.split!r}"


class RowsError(DataError):
    """Rows that can't be used; `mistakes` holds (row, what is wrong) for all of them."""

    def __init__(self, where: Where, mistakes: Sequence[tuple[int, str]], *, most: int = 8):
        self.where, self.mistakes = where, list(mistakes)
        shown = [f"  row {row}: {what}" for row, what in self.mistakes[:most]]
        more = [f"  … and {len(self.mistakes) - most} more"] if len(self.mistakes) > most else []
        ways = "  way out: correct the data, or leave such rows out with `prepare:`"
        count = len({row for row, _ in self.mistakes})
        super().__init__("\n".join([f"{where}: {count} row(s) can't be used:", *shown, *more, ways]))


def complain(where: Where, mistakes: Sequence[tuple[int, str]]) -> None:
    """Raise one error for all mistakes (row, what is wrong).

    Raises:
        RowsError: if there is any mistake.
    """
    if mistakes:
        raise RowsError(where, [(row + where.first, what) for row, what in mistakes])
