"""Rows, labels and lengths of every task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from nlp_mtl.data import Data, PoolRows
from nlp_mtl.dryrun.result import SplitRows, TaskRows
from nlp_mtl.heads.base import Head
from nlp_mtl.taskfile import SPLITS


def task_rows(data: Data, max_length: int) -> dict[str, TaskRows]:
    """What every task reads and predicts, from its tokenized rows.

    Args:
        data: the tokenized rows.
        max_length: of the run, in tokens.
    """
    found = {}
    for task, head in data.heads.items():
        pools = {split: pool for split in SPLITS if (pool := data.pool_of(task, split)) is not None}
        found[task] = TaskRows(
            head=head.task.head_name,
            max_length=min(head.task.max_length or max_length, max_length),
            label_map={name: number for number, name in enumerate(head.labels)} if head.labels else None,
            splits={split: _split_rows(task, head, pool) for split, pool in pools.items()},
        )
    return found


def _split_rows(task: str, head: Head, pool: PoolRows) -> SplitRows:
    facts = pool.facts[task]
    column = pool.table.data.table.column(f"labels:{task}").combine_chunks().drop_null()
    return SplitRows(
        rows=facts["rows"],
        labelled=facts["labelled"],
        tokens=token_lengths(pool),
        truncated=facts["truncated"],
        truncated_share=facts["truncated"] / facts["rows"],
        labels=count_labels(column, head),
        numbers=describe_numbers(column, head),
    )


def token_lengths(pool: PoolRows) -> dict[str, int]:
    """Percentiles of the tokens per sequence (the choices of a multiple-choice row are a sequence each)."""
    column = pool.table.data.table.column("lengths")
    lengths = np.concatenate([pc.list_flatten(chunk).to_numpy(zero_copy_only=False) for chunk in column.chunks])
    at = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: int(np.percentile(lengths, share, method="higher")) for name, share in at.items()}


def count_labels(column: Any, head: Head) -> dict[str, int] | None:
    """How often every label stands in a column, from how the head says that its labels are stored; None if they aren't.

    Args:
        column: an Arrow array without nulls: class numbers, lists of them (−1 is no label), or lists of 0 and 1.
        head: gives the names; without names, numbers are counted as they are (the right one of several choices).
    """
    numbered = head.label_type.startswith("int")
    if not head.needs_labels or (head.labels is None and (head.label_is_list or not numbered)):
        return None
    if head.label_is_list and not numbered:  # one column of 0 and 1 per label
        flat, names = np.asarray(pc.list_flatten(column)), head.labels or []
        if len(flat) != len(column) * len(names):  # a head of another kind
            return None
        return {name: int(flat[number :: len(names)].sum()) for number, name in enumerate(names)}
    flat = np.asarray(pc.list_flatten(column) if head.label_is_list else column)
    numbers, counts = np.unique(flat[flat >= 0], return_counts=True)
    known = {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}
    return known if head.labels is None else {name: known.get(str(i), 0) for i, name in enumerate(head.labels)}


def describe_numbers(column: Any, head: Head) -> dict[str, float] | None:
    """Smallest, mean, largest and standard deviation of a regression's targets; None for other heads."""
    if head.label_is_list or not head.label_type.startswith("float") or not len(column):
        return None
    values = np.asarray(column, dtype=float)
    known = {"min": values.min(), "mean": values.mean(), "max": values.max(), "std": values.std()}
    return {name: round(float(value), 6) for name, value in known.items()}
