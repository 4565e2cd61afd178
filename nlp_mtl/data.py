"""From tasks to tokenized rows, cached; what was tokenized once is read back by memory mapping."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_mtl import packages, sources
from nlp_mtl.columns import Column, read_column
from nlp_mtl.errors import DataError, NlpMtlError, NotFoundError
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.make import meet
from nlp_mtl.registry import own_source
from nlp_mtl.taskfile import SPLITS, Split
from nlp_mtl.tokenizing import tokenize_pool

if TYPE_CHECKING:
    from datasets import Dataset

CACHE_VERSION = 2  # raise it when what is written to the cache changes
_TOKENS = ("input_ids", "token_type_ids")
_FOR_ROWS = ("lengths", "word_positions", "maskable", "mask_id", "vocabulary")


@dataclass
class PoolRows:
    """Tokenized rows of one split that the same tasks label.

    Attributes:
        key: the names of its tasks, joined.
        tasks: the tasks.
        table: the rows: token columns, ``labels:<task>`` and the columns the heads keep.
        facts: per task what was counted: rows, labelled, truncated, and rows that stand in training too.
        needs_labels: per task whether it learns from labelled rows only.
        weights: [rows], how often each is shown where others are shown once; None for all alike.
    """

    key: str
    tasks: tuple[str, ...]
    table: Dataset
    facts: dict[str, dict[str, int]]
    needs_labels: dict[str, bool]
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def readers(self) -> tuple[str, ...]:
        """The tasks that may learn from its rows."""
        return self.tasks

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Number columns by name, read without copying."""
        names = [n for n in self.table.column_names if n in _TOKENS or n in _FOR_ROWS or n.startswith("labels:")]
        return {name: read_column(self.table.data.table, name) for name in names}

    def row(self, number: int) -> dict[str, Any]:
        """The number columns of a row."""
        return {name: column[number] for name, column in self.columns.items()}

    @cached_property
    def trainable(self) -> np.ndarray:
        """Numbers of the rows that at least one task can learn from."""
        return np.flatnonzero(np.any([self.labelled(task) for task in self.tasks], axis=0))

    def labels(self, task: str) -> list[Any]:
        """All labels of a task, None where there is none."""
        return self.table[f"labels:{task}"][:]

    @cached_property
    def tokens(self) -> np.ndarray:
        """[rows]: tokens of each row."""
        return self.columns["input_ids"].lengths()  # type: ignore[union-attr]

    def labelled(self, task: str) -> np.ndarray:
        """[rows]: whether the task can learn from the row: it has a label, or needs none."""
        if not self.needs_labels[task]:
            return np.ones(len(self), dtype=bool)
        column = self.table.data.table.column(f"labels:{task}")
        return column.is_valid().to_numpy()


@dataclass
class Data:
    """All rows of some tasks, by split.

    Attributes:
        heads: task → head, with label names found in the data.
        splits: split → pools.
    """

    heads: dict[str, Head]
    splits: dict[Split, list[PoolRows]] = field(default_factory=dict)

    def pool_of(self, task: str, split: Split) -> PoolRows | None:
        """The pool that holds a task's rows of a split, if it has any."""
        return next((pool for pool in self.splits.get(split, []) if task in pool.tasks), None)

    def facts(self, task: str, split: Split) -> dict[str, int]:
        """Counts of a task's rows: rows, labelled, truncated, in_train."""
        pool = self.pool_of(task, split)
        return pool.facts[task] if pool else {}

    def notes(self) -> list[str]:
        """What a user should know before training: rows cut, without a label, or on both sides."""
        found = []
        for task, head in self.heads.items():
            if self.pool_of(task, "validation") is None:
                found.append(
                    f"{task}: no validation rows, so it is not scored in training and has no say in the best "
                    "checkpoint (`splits: {validation: 0.1}` holds out some)"
                )
            if self.pool_of(task, "train") is None and head.task.head_key == task:
                found.append(f"{task}: no training rows, so its head learns nothing")
            if head.labels and len(head.labels) == 1:
                found.append(f"{task}: every label is {head.labels[0]!r}, from which nothing can be learned")
            for split in SPLITS:
                facts = self.facts(task, split) or {"truncated": 0, "in_train": 0, "labelled": 0, "rows": 0}
                unlabelled = facts["rows"] - facts["labelled"] if split == "train" else 0
                said = {
                    "cut to the maximum length": facts["truncated"],
                    "without a label, skipped for this task": unlabelled,
                    "also among the training rows": facts["in_train"],
                    "with a target cut to max_target_length": facts.get("cut_targets", 0),
                }
                parts = [f"{count} {what}" for what, count in said.items() if count]
                if parts:
                    found.append(f"{task}, {split}: {facts['rows']} rows, {'; '.join(parts)}")
        return found


class SeveralNotFoundError(NotFoundError):
    """Data sets of several tasks that were not found."""

    def __init__(self, errors: Sequence[NlpMtlError]):
        Exception.__init__(self, "\n".join(str(error) for error in errors))


def load_data(
    heads: Mapping[str, Head],
    tokenizer: Any,
    *,
    max_length: int,
    data_root: str | Path | None = None,
    splits: Iterable[Split] = ("train", "validation", "test"),
) -> Data:
    """Find, check and tokenize the rows of all tasks; what was tokenized before is read from the cache.

    Args:
        heads: task → head; learns label names from the data where the task lists none.
        tokenizer: a fast tokenizer.
        max_length: tokens per sequence, where the task says nothing.
        data_root: see :func:`nlp_mtl.sources.load_rows`.
        splits: the splits wanted.

    Raises:
        NotFoundError: data sets that are nowhere, and nothing else is wrong.
        DataError: rows that can't be used, and data sets that are nowhere, of all tasks at once.
    """
    pools: dict[str, list[Head]] = {}
    meet(heads, tokenizer, data_root)
    for head in heads.values():
        pools.setdefault(_pool_key(head), []).append(head)
    data = Data(dict(heads))
    mistakes: list[NlpMtlError] = []
    signature = tokenizer_signature(tokenizer)
    for members in pools.values():
        try:
            for split, rows in _load_pool(members, tokenizer, signature, max_length, data_root).items():
                if split in splits:
                    data.splits.setdefault(split, []).append(rows)
        except (DataError, NotFoundError) as error:
            mistakes.append(error)
    _complain(mistakes)
    if differing := _labels_that_differ(heads):
        raise DataError("\n".join(differing))
    return data


def _complain(mistakes: Sequence[NlpMtlError]) -> None:
    """Raise what is wrong with several tasks' data as one error."""
    if not mistakes:
        return
    if len(mistakes) == 1:
        raise mistakes[0]
    if all(isinstance(error, NotFoundError) for error in mistakes):
        raise SeveralNotFoundError(mistakes)
    raise DataError("\n".join(str(error) for error in mistakes))


def _labels_that_differ(heads: Mapping[str, Head]) -> list[str]:
    """Tasks that share a head, but whose data gave them other labels than its owner's."""
    pairs = [(heads[head.task.head_key], head) for head in heads.values() if head.task.head_key in heads]
    return [
        f"tasks {owner.task.name!r} and {head.task.name!r} share a head, but the labels in their data differ "
        f"({', '.join(owner.labels or [])}; {', '.join(head.labels or [])}); list `labels` in {owner.task.name!r}"
        for owner, head in pairs
        if head.by_labels and head.labels != owner.labels
    ]


def _pool_key(head: Head) -> str:
    said = head.task.model_dump(
        mode="json", include={"dataset", "splits", "split_seed", "prepare", "rows", "rows_seed", "max_length"}
    )
    folder = [str(task.file.parent) if task.file else "" for task in (head.task, *head.task.inner)]
    return json.dumps([said, head.task.metric_columns.get("groups"), folder, head.reading()], sort_keys=True)


def tokenizer_signature(tokenizer: Any) -> str:
    """What tells tokenizers apart that make other tokens of the same text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)
    state.pop("padding", None)
    known = [type(tokenizer).__name__, state, sorted(map(str, tokenizer.all_special_tokens)), tokenizer.truncation_side]
    known += [list(tokenizer.model_input_names)]
    said = json.dumps(known, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:24]


def _load_pool(
    members: Sequence[Head], tokenizer: Any, signature: str, max_length: int, data_root: Any
) -> dict[Split, PoolRows]:
    task = members[0].task
    length = min(task.max_length or max_length, max_length)
    said = [
        CACHE_VERSION,
        sources.identity(task, data_root=data_root),
        signature,
        length,
        [[h.task.name, h.data_spec(), h.task.target, h.task.labels, h.reading(), own_source(h)] for h in members],
        [h.task.metric_columns for h in members],
    ]
    key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]
    folder = packages.cache_folder() / "tokenized" / key
    if not (folder / "facts.json").is_file():
        tokenize_pool(members, tokenizer, length, data_root, folder)
    return _open_pool(members, folder)


def _open_pool(members: Sequence[Head], folder: Path) -> dict[Split, PoolRows]:
    from datasets import Dataset

    known = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    for head in members:
        head.set_labels(known["labels"].get(head.task.name))
    key, tasks = "+".join(head.task.name for head in members), tuple(head.task.name for head in members)
    needs = {head.task.name: head.needs_labels for head in members}
    return {
        split: PoolRows(key, tasks, Dataset.from_file(str(folder / f"{split}.arrow")), facts, needs)
        for split, facts in known["splits"].items()
    }
