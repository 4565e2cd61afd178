"""From tasks to tokenized rows, cached; what was tokenized once is read back by memory mapping."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_mtl import packages, sources
from nlp_mtl.columns import Column, read_column
from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Head, RowsError, Where
from nlp_mtl.tasks import Split

if TYPE_CHECKING:
    from datasets import Dataset

CACHE_VERSION = 1  # raise it when what is written to the cache changes
_TOKENS = ("input_ids", "token_type_ids")
_FOR_ROWS = ("lengths", "word_positions", "maskable", "mask_id", "vocabulary")
_INT_LISTS = (*_TOKENS, "lengths", "word_positions", "maskable", "offsets")


@dataclass
class PoolRows:
    """Tokenized rows of one split that the same tasks label.

    Attributes:
        key: the names of its tasks, joined.
        tasks: the tasks.
        table: the rows: token columns, ``labels:<task>`` and the columns the heads keep.
        facts: per task what was counted: rows, labelled, truncated, and rows that stand in training too.
        needs_labels: per task whether it learns from labelled rows only.
    """

    key: str
    tasks: tuple[str, ...]
    table: Dataset
    facts: dict[str, dict[str, int]]
    needs_labels: dict[str, bool]

    def __len__(self) -> int:
        return len(self.table)

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
        NotFoundError: a data set is nowhere.
        DataError: rows that can't be used, of all tasks at once.
    """
    pools: dict[str, list[Head]] = {}
    for head in heads.values():
        pools.setdefault(_pool_key(head), []).append(head)
    data = Data(dict(heads))
    mistakes: list[str] = []
    signature = _tokenizer_signature(tokenizer)
    for members in pools.values():
        try:
            for split, rows in _load_pool(members, tokenizer, signature, max_length, data_root).items():
                if split in splits:
                    data.splits.setdefault(split, []).append(rows)
        except DataError as error:
            mistakes.append(str(error))
    mistakes = mistakes or _labels_that_differ(heads)
    if mistakes:
        raise DataError("\n".join(mistakes))
    return data


def _labels_that_differ(heads: Mapping[str, Head]) -> list[str]:
    """Tasks that share a head, but whose data gave them other labels than its owner's."""
    pairs = [(heads[head.task.head_key], head) for head in heads.values() if head.task.head_key in heads]
    return [
        f"tasks {owner.task.name!r} and {head.task.name!r} share a head, but the labels in their data differ "
        f"({', '.join(owner.labels or [])}; {', '.join(head.labels or [])}); list `labels` in {owner.task.name!r}"
        for owner, head in pairs
        if head.labels != owner.labels
    ]


def _pool_key(head: Head) -> str:
    said = head.task.model_dump(mode="json", include={"dataset", "splits", "prepare", "rows", "max_length"})
    return json.dumps([said, str(head.task.file.parent) if head.task.file else "", head.reading()], sort_keys=True)


def _tokenizer_signature(tokenizer: Any) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)
    state.pop("padding", None)
    known = [type(tokenizer).__name__, state, sorted(map(str, tokenizer.all_special_tokens)), tokenizer.truncation_side]
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
        [[h.task.name, h.task.head, h.task.target, h.task.labels, h.reading()] for h in members],
    ]
    key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]
    folder = packages.cache_folder() / "tokenized" / key
    if not (folder / "facts.json").is_file():
        _tokenize_pool(members, tokenizer, length, data_root, folder)
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


def _tokenize_pool(members: Sequence[Head], tokenizer: Any, max_length: int, data_root: Any, folder: Path) -> None:
    raw = sources.load_rows(members[0].task, data_root=data_root)
    names: dict[str, list[str] | None] = {}
    for head in members:
        found = next((rows for rows in raw.values() if head.task.target in rows.column_names), None)
        names[head.task.name] = head.label_names(found, head.task.target or "") if found is not None else None
        _check_more_columns(head, raw)
        head.set_labels(names[head.task.name])
    work = folder.with_name(f".{folder.name}-{os.getpid()}")
    work.mkdir(parents=True, exist_ok=True)
    facts: dict[str, dict[str, dict[str, int]]] = {}
    mistakes: list[str] = []
    train_rows: set[bytes] = set()
    for split, rows in raw.items():
        try:
            table = _tokenize_split(members, rows, names, tokenizer, max_length, split, work / f"{split}.arrow")
        except DataError as error:
            mistakes.append(str(error))
            continue
        facts[split] = _count(members, table, split, train_rows)
    if mistakes:
        shutil.rmtree(work, ignore_errors=True)
        raise DataError("\n".join(mistakes))
    labels = {head.task.name: names[head.task.name] for head in members}
    (work / "facts.json").write_text(json.dumps({"labels": labels, "splits": facts}), encoding="utf-8")
    try:
        os.replace(work, folder)
    except OSError:  # another process was first: its files are the same
        shutil.rmtree(work, ignore_errors=True)
        if not (folder / "facts.json").is_file():
            raise


def _check_more_columns(head: Head, raw: Mapping[Split, Dataset]) -> None:
    for split, rows in raw.items():
        target = [head.task.target] if head.task.target and split != "test" else []
        for column in [*head.needed_columns(), *target]:
            if column not in rows.column_names:
                raise DataError(
                    f"task {head.task.name!r}, split {split!r}: the head reads the column {column!r}; "
                    f"the data has {', '.join(rows.column_names)}"
                )


def _tokenize_split(
    members: Sequence[Head],
    rows: Dataset,
    names: Mapping[str, Sequence[str] | None],
    tokenizer: Any,
    max_length: int,
    split: Split,
    file: Path,
) -> Dataset:
    first = members[0]
    keep = list(dict.fromkeys(first.needed_columns()))
    given = {head.task.name: number_names(rows, head.task.target) for head in members}
    mistakes: dict[str, list[tuple[int, str]]] = {}
    for head in members:
        if head.task.target in rows.column_names:
            head.look_at(rows[head.task.target])

    def batch(columns: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        errors: list[RowsError] = []
        out: dict[str, list[Any]] = {}
        try:
            out = first.tokenize(columns, tokenizer, max_length, Where(first.task.name, split, numbers[0]))
        except RowsError as error:
            errors.append(error)
        for head in members:
            name, target = head.task.name, head.task.target
            values = columns[target] if target in columns else [None] * len(numbers)
            try:
                labels = head.encode_labels(values, given[name], columns, Where(name, split, numbers[0]))
            except RowsError as error:
                errors.append(error)
            if errors:
                continue
            out[f"labels:{name}"] = head.place_labels(labels, out)
            if head.keeps_target and target in columns:
                out[f"target:{name}"] = [values[source] for source in out["source"]]
        if errors:
            raise _SeveralErrors(errors)
        out.update({column: [columns[column][source] for source in out["source"]] for column in keep})
        out["source"] = [numbers[source] for source in out["source"]]
        return out

    def collecting(columns: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        try:
            return batch(columns, numbers)
        except _SeveralErrors as several:
            for error in several.errors:
                mistakes.setdefault(error.where.task, []).extend(error.mistakes)
            return {name: [] for name in features}

    def all_mistakes() -> DataError:
        return DataError("\n".join(str(RowsError(Where(task, split), found)) for task, found in mistakes.items()))

    features: dict[str, Any] = {}
    sample = rows.select(range(min(len(rows), 100)))
    try:
        features = _features(batch(sample[:], list(range(len(sample)))), members, rows)
    except _SeveralErrors:
        for begin in range(0, len(rows), 1000):
            collecting(rows[begin : begin + 1000], list(range(begin, min(begin + 1000, len(rows)))))
        raise all_mistakes() from None
    with sources.quiet_datasets() if len(rows) <= 2000 else nullcontext():
        table = rows.map(
            collecting,
            batched=True,
            with_indices=True,
            batch_size=1000,
            remove_columns=rows.column_names,
            cache_file_name=str(file),
            load_from_cache_file=False,
            features=features,
            desc=f"tokenizing {first.task.name} ({split})",
        )
    if mistakes:
        raise all_mistakes()
    return table


class _SeveralErrors(Exception):
    """What is wrong with some rows for several tasks."""

    def __init__(self, errors: Sequence[RowsError]):
        super().__init__()
        self.errors = list(errors)


def _features(example: Mapping[str, Sequence[Any]], members: Sequence[Head], rows: Dataset) -> Any:
    """What is stored: token columns as 32-bit numbers, labels as their head says, input columns as they were."""
    from datasets import Dataset, Features, List, Value

    features = dict(Dataset.from_dict(dict(example)).features)
    for name in features:
        if name in _INT_LISTS:
            features[name] = List(Value("int32"))
        elif name in rows.features:
            features[name] = rows.features[name]
    for head in members:
        kind = Value(head.label_type)
        features[f"labels:{head.task.name}"] = List(kind) if head.label_is_list else kind
        if f"target:{head.task.name}" in features:
            features[f"target:{head.task.name}"] = rows.features[head.task.target]
    return Features(features)


def number_names(rows: Dataset, column: str | None) -> list[str] | None:
    """Names of the numbers in a ClassLabel column, or in a list of them."""
    feature = rows.features.get(column) if column else None
    feature = getattr(feature, "feature", feature)
    names = getattr(feature, "names", None)
    return list(names) if names else None


def _count(members: Sequence[Head], table: Dataset, split: Split, train: set[bytes]) -> dict[str, dict[str, int]]:
    ids = read_column(table.data.table, "input_ids")
    hashes = [
        hashlib.blake2b(np.asarray(ids[row]).astype(np.int32).tobytes(), digest_size=8).digest()
        for row in range(len(table))
    ]
    if split == "train":
        train.update(hashes)
    overlap = 0 if split == "train" else sum(h in train for h in hashes)
    truncated = int(sum(table["truncated"][:]))
    counts = {}
    for head in members:
        labelled = table.data.table.column(f"labels:{head.task.name}")
        count = len(table) - labelled.null_count if head.needs_labels else len(table)
        counts[head.task.name] = {"rows": len(table), "labelled": count, "truncated": truncated, "in_train": overlap}
    return counts
