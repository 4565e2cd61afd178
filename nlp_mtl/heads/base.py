"""The contract of every head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl import metrics
from nlp_mtl.errors import ConfigError, DataError, UnsupportedError
from nlp_mtl.heads import vanilla
from nlp_mtl.heads.labels import Where, metric_column
from nlp_mtl.layout import Layout
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

    A head object belongs to one task and holds no tensors; its module does. Rows are columns on the way in, and one
    prediction each on the way out. Class attributes: `auto_class`, the vanilla class; `needs_labels`, whether it
    learns from labelled rows only; `label_type` and `label_is_list`, how labels are stored; `keeps_target`, whether
    the target column is kept for scoring; `reads_template`, whether it reads one text that a template may make;
    `for_model`, arguments that change nothing of how rows are read; `gives_scores`, whether :meth:`scores` gives
    metrics class probabilities; `decodes_rows`, whether there is one decoded prediction per row, so that metrics can
    be given columns of the rows; `also_gives`, columns that its :meth:`tokenize` gives beyond those of other heads
    with the same :meth:`manner`; `by_labels`, whether its module has something for each label; `own_when_lent`,
    arguments that a task may have otherwise than the one whose module it uses; `about_labels`, those of them that are
    not taken over from a task with other labels; `writes`, whether it makes texts word by word; `auxiliary`, whether
    it is there for the encoder: its scores have no say in means and in which checkpoint is best.

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
    reads_template: ClassVar[bool] = False
    for_model: ClassVar[tuple[str, ...]] = ()
    gives_scores: ClassVar[bool] = False
    decodes_rows: ClassVar[bool] = True
    also_gives: ClassVar[tuple[str, ...]] = ()
    by_labels: ClassVar[bool] = True
    own_when_lent: ClassVar[tuple[str, ...]] = ()
    about_labels: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[bool] = False
    auxiliary: ClassVar[bool] = False

    def __init__(self, task: Task):
        if task.template is not None and not self.reads_template:
            raise ConfigError(
                f"task {task.name!r}: `template` makes one text, and {task.head_name} reads something else"
            )
        self.task = task
        self.spec: Any = task.head
        self.labels: list[str] | None = task.labels
        self.metrics = list(task.metrics or self.default_metrics)
        self.exportable, self.why_not = True, ""
        self.layer: int | str | None = None  # which layer of the encoder it reads, or "mix"; None for the last
        self.dimensions: list[int] | None = None  # of the hidden states it reads; None for all

    # ------------------------------------------------------------------------------------------------------ data

    def reading(self) -> tuple[Any, ...]:
        """What makes two tasks tokenize the same rows in the same way; such tasks share rows in a batch."""
        return ("text", *self.task.inputs, *([self.task.template] if self.task.template else []))

    def manner(self) -> tuple[Any, ...]:
        """What makes two tasks make the same tokens of the same values, whatever their columns are called.

        It is :meth:`reading` with the places of the columns for their names.
        """
        return self._by_place(self.reading())

    def _by_place(self, reading: tuple[Any, ...]) -> tuple[Any, ...]:
        kind, *more = reading
        names = self.needed_columns()
        return (kind, *(names.index(part) if part in names else part for part in more))

    def data_spec(self) -> dict[str, Any]:
        """The head's name and those of its arguments that change what is made of rows."""
        said = {"name": self.spec} if isinstance(self.spec, str) else dict(self.spec)
        return {key: value for key, value in said.items() if key not in (*self.for_model, "layer", "dimensions")}

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
        from nlp_mtl.heads.texts import joined, tokenize_texts

        if self.task.template is not None:
            return tokenize_texts(joined(rows, self.task.template, where), ["template"], tokenizer, max_length, where)
        return tokenize_texts(rows, self.task.inputs, tokenizer, max_length, where)

    def meet(self, tokenizer: Any, *, data_root: Any = None, texts: Sequence[Any] | None = None) -> None:
        """Find what is needed to read targets (another tokenizer), before rows are read or the module is built.

        Called again, it does nothing more.

        Args:
            tokenizer: the encoder's.
            data_root: where data sets are looked for first.
            texts: targets to learn from instead of the training rows.
        """

    def writes_like(self, other: Head) -> bool:
        """Whether what it writes means the same as what another head of its kind writes; asked when weights move."""
        return True

    def borrow(self, owner: Head) -> None:
        """Take over what the head that owns the module has met; see :meth:`meet`."""

    def lent(self, owner: Head, module: nn.Module) -> None:
        """Take over what the head that owns a module was told when it built it; see :meth:`build`."""
        self.exportable, self.why_not = owner.exportable, owner.why_not

    def save_files(self, folder: Path) -> None:
        """Write what the module needs beside its weights into a run folder; by default nothing."""

    def load_files(self, folder: Path) -> None:
        """Read what :meth:`save_files` wrote; :meth:`meet` then looks for nothing."""

    def cut_labels(self, labels: Sequence[Any]) -> int:
        """How many of some encoded labels were cut; by default labels are never."""
        return 0

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

    def advance(self, progress: float) -> None:
        """Be told before each step what part of the training is done, from 0 to 1; by default nothing comes of it."""

    def record(self, **arguments: Any) -> None:
        """Note in the spec what was learned from rows; it is saved with the model. None takes an argument out."""
        said = {"name": self.spec} if isinstance(self.spec, str) else dict(self.spec)
        self.spec = {key: value for key, value in {**said, **arguments}.items() if value is not None}

    def reads(self, module: nn.Module, layout: Layout, target: Mapping[str, Tensor]) -> Tensor:
        """Indices of the tokens whose last hidden state :meth:`forward` looks at; by default all of the rows' tokens.

        The encoder may leave out what no head reads.
        """
        if "sequences" not in target:
            return torch.arange(layout.tokens, device=layout.device)
        return layout.tokens_of(target["sequences"])

    def forward(self, module: nn.Module, packed: Packed, target: Mapping[str, Tensor]) -> Tensor:
        """Logits for the task's rows; of a head that writes, what its own :meth:`loss` and :meth:`predict` take."""
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

    def lacking(self, tokenizer: Any) -> str:
        """What a row would need, of which :meth:`ask` says that it asks nothing."""
        return "something to answer"

    def answer_of(self, parts: Sequence[tuple[Any, Mapping[str, Any]]]) -> dict[str, Any]:
        """The answer to one input from the predictions and columns of its rows; usually there is one."""
        prediction, row = parts[0]
        return self.answer(prediction, row)

    def answers(self, inputs: Sequence[Sequence[tuple[Any, Mapping[str, Any]]]]) -> list[dict[str, Any]]:
        """As :meth:`answer_of`, for many inputs; heads that can, do the numbers of all of them at once."""
        return [self.answer_of(parts) for parts in inputs]

    def references(self, labels: Sequence[Any], rows: Any) -> list[Any]:
        """Labels in the form the metrics take; `rows` gives the other columns kept by :meth:`tokenize`."""
        return list(labels)

    def decode(self, predictions: Sequence[Any], rows: Any) -> list[Any]:
        """Predictions in the form the metrics take."""
        raise NotImplementedError

    @property
    def tunes(self) -> bool:
        """Whether decisions hang on something that is chosen on the validation rows."""
        return False

    def chosen(self) -> dict[str, float]:
        """What was chosen, by label."""
        return {}

    def tune(self, predictions: Sequence[Any], references: Sequence[Any]) -> None:
        """Choose so that the task's first metric is best on these rows, and record it."""

    def recall(self, spec: Mapping[str, Any]) -> None:
        """Take what was chosen from a recorded spec; from an empty one, nothing is chosen any more."""

    def undecided(self, predictions: Sequence[Any], rows: Any) -> list[Any]:
        """As :meth:`decode`, as if nothing had been chosen."""
        return self.decode(predictions, rows)

    def in_words(self, decoded: Any) -> Any:
        """One decoded prediction as a user reads it: names for class numbers; by default as it is."""
        return decoded

    def trivial(self, train_labels: Sequence[Any], train_rows: Any, labels: Sequence[Any], rows: Any) -> list[Any]:
        """What a baseline that reads nothing would predict, in the form the metrics take."""
        raise NotImplementedError

    def scores(self, predictions: Sequence[Any]) -> np.ndarray:
        """[rows, labels]: class probabilities, of a head that `gives_scores`."""
        raise NotImplementedError

    def trivial_scores(self, train_labels: Sequence[Any], rows: int) -> np.ndarray:
        """[rows, labels]: what a baseline that reads nothing gives, the labels' shares of the training rows."""
        raise NotImplementedError

    def for_metrics(self, rows: Any, scores: Callable[[], np.ndarray]) -> dict[str, Any]:
        """What the task's metrics need besides predictions and references.

        Args:
            rows: the columns kept by tokenizing, of the rows that are scored.
            scores: makes [rows, labels]; called where a metric needs them.

        Raises:
            DataError: rows without a column that a metric needs.
        """
        given: dict[str, Any] = {}
        for need in dict.fromkeys(need for name in self.metrics for need in metrics.needs(name)):
            kept = metric_column(self.task, need)
            if need == "scores":
                given[need] = scores()
            elif kept not in (rows if isinstance(rows, Mapping) else rows.column_names):
                column = self.task.metric_columns.get(need)
                raise DataError(f"task {self.task.name!r}: these rows lack the column {column!r}, which metrics need")
            else:
                given[need] = rows[kept][:]
        return given

    def score(
        self, decoded: Sequence[Any], references: Sequence[Any], given: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """The task's metrics; the first one decides. `given`: what they need besides, see :meth:`for_metrics`."""
        return metrics.score(self.metrics, decoded, references, labels=self.labels, given=given)
