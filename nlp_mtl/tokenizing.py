"""Rows of one pool through the tokenizer and the heads, written to the cache; all mistakes in them at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlp_mtl import sources
from nlp_mtl.columns import read_column
from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Head
from nlp_mtl.heads.labels import RowsError, Where, metric_column
from nlp_mtl.reading import quiet_datasets
from nlp_mtl.taskfile import Split

if TYPE_CHECKING:
    from datasets import Dataset

_OURS = {"input_ids", "token_type_ids", "lengths", "truncated", "source", "offsets", "word_positions", "word_spans"}
_OURS |= {"maskable", "mask_id", "vocabulary"}
_INT_LISTS = ("input_ids", "token_type_ids", "lengths", "word_positions", "maskable", "offsets")


def tokenize_pool(members: Sequence[Head], tokenizer: Any, max_length: int, data_root: Any, folder: Path) -> None:
    """Read, check, tokenize and store all splits of a pool; the folder appears when it is whole.

    Raises:
        DataError: what is wrong with the rows, of all splits at once.
    """
    raw = sources.load_rows(members[0].task, data_root=data_root)
    names: dict[str, list[str] | None] = {}
    for head in members:
        found = next((rows for rows in raw.values() if head.task.target in rows.column_names), None)
        look = found is not None and head.labels is None
        names[head.task.name] = head.label_names(found, head.task.target or "") if look else None
        _check_more_columns(head, raw)
        head.set_labels(names[head.task.name])
    work = folder.with_name(f".{folder.name}-{os.getpid()}")
    work.mkdir(parents=True, exist_ok=True)
    try:
        _write_pool(members, tokenizer, max_length, raw, names, work)
        os.replace(work, folder)
    except OSError:
        if not (folder / "facts.json").is_file():  # else another process was first: its files are the same
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_pool(
    members: Sequence[Head],
    tokenizer: Any,
    max_length: int,
    raw: Mapping[Split, Dataset],
    names: Mapping[str, list[str] | None],
    work: Path,
) -> None:
    facts: dict[str, dict[str, dict[str, int]]] = {}
    mistakes: list[str] = []
    train_rows: set[bytes] = set()
    for split, rows in raw.items():
        try:
            table = _tokenize_split(members, rows, tokenizer, max_length, split, work / f"{split}.arrow")
        except DataError as error:
            mistakes.append(str(error))
            continue
        facts[split] = _count(members, table, split, train_rows)
    if mistakes:
        raise DataError("\n".join(mistakes))
    labels = {head.task.name: names[head.task.name] for head in members}
    (work / "facts.json").write_text(json.dumps({"labels": labels, "splits": facts}), encoding="utf-8")


def _check_more_columns(head: Head, raw: Mapping[Split, Dataset]) -> None:
    taken = [name for name in head.needed_columns() if name in _OURS or name.startswith(("labels:", "target:"))]
    if taken:
        raise DataError(
            f"task {head.task.name!r}: tokenized rows have columns of their own called so, found `inputs` named "
            f"{', '.join(map(repr, taken))}; rename with `prepare: {{name: rename, columns: {{{taken[0]}: text}}}}`"
        )
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
            for need, column in head.task.metric_columns.items():
                if column in columns:
                    out[metric_column(head.task, need)] = [columns[column][source] for source in out["source"]]
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
    with quiet_datasets() if len(rows) <= 2000 else nullcontext():
        table = rows.map(
            collecting,
            batched=True,
            with_indices=True,
            batch_size=1000,
            remove_columns=rows.column_names,
            cache_file_name=str(file),
            load_from_cache_file=False,
            features=features,
            new_fingerprint=hashlib.sha256(str(file).encode()).hexdigest()[:16],  # else all that `collecting` reaches
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
        for need, column in head.task.metric_columns.items():
            if metric_column(head.task, need) in features:
                features[metric_column(head.task, need)] = rows.features[column]
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
        if type(head).cut_labels is not Head.cut_labels:
            counts[head.task.name]["cut_targets"] = head.cut_labels(table[f"labels:{head.task.name}"][:])
    return counts
