"""What a teacher says of rows, beside their labels in a mixed batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.errors import DataError
from nlp_mtl.heads.base import Head, PlacedRow
from nlp_mtl.heads.taught import Kind, kind_of


def column(task: str) -> str:
    """The name under which rows carry what a task's teacher says of them: its numbers, and its states or None."""
    return f"teacher:{task}"


def collated(head: Head, rows: Sequence[PlacedRow]) -> dict[str, Any]:
    """A task's part of a mixed batch, with what its teacher says of the rows where there is one.

    Beside what :meth:`Head.collate` gives then stands `teacher`: `values` [items, numbers] and `states`
    [items, hidden] or None; `known` [items] of bools, whose teacher is known, None for all; `both` and `alone` [rows]
    of bools, which have a label and a teacher (None for all) or a label alone (None for none); `units`, what the loss
    is averaged over.

    Raises:
        DataError: the teacher saw other items than the head does.
    """
    kind = kind_of(head)
    name = "" if kind is None else column(head.task.name)
    if kind is None or not any(name in row.columns for row in rows):
        return head.collate(rows)
    labelled = np.array([row.label is not None for row in rows])
    if labelled.any() and not labelled.all():
        example = next(row.label for row in rows if row.label is not None)
        rows = [row if row.label is not None else replace(row, label=kind.no_label(row, example)) for row in rows]
    target: dict[str, Any] = dict(head.collate(rows))
    numbers = next(row.columns[name] for row in rows if name in row.columns)
    values = torch.from_numpy(np.concatenate([_items(kind, row, name, 0, numbers[0]) for row in rows]))
    states = None
    if numbers[1] is not None:
        states = torch.from_numpy(np.concatenate([_items(kind, row, name, 1, numbers[1]) for row in rows]))
    known = ~values[:, 0].isnan()
    rows_known = kind.taught_rows(known, target) if len(known) else known
    both, alone = _split(torch.from_numpy(labelled), rows_known)
    told: dict[str, Any] = {
        "values": values,
        "states": states,
        "known": None if bool(known.all()) else known,
        "both": both,
        "alone": alone,
    }
    told["units"] = kind.units(told, target)
    return {**target, "teacher": told}


def _split(labelled: Tensor, known: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Which rows have both, None for all, and which a label alone, None for none; words are told apart elsewhere."""
    if len(known) != len(labelled):
        return None, None
    both, alone = labelled & known, labelled & ~known
    return (None if bool(both.all()) else both), (alone if bool(alone.any()) else None)


def _items(kind: Kind, row: PlacedRow, name: str, part: int, like: np.ndarray) -> np.ndarray:
    """[items that are read, numbers]: what the teacher says of a row, NaN where it says nothing."""
    seen = kind.seen(row)
    if name not in row.columns:
        return np.full((int(seen.sum()), like.shape[1]), np.nan, dtype=np.float32)
    found = row.columns[name][part]
    if len(found) != len(seen):
        raise DataError(
            f"distillation: the teacher found {len(found)} parts in a row of {name.partition(':')[2]!r} where this run "
            f"finds {len(seen)}; use a teacher that reads the same rows"
        )
    return found[seen]


def units_of(head: Head, target: Mapping[str, Any]) -> int:
    """What a task's loss is averaged over, in this part of a mixed batch."""
    return int(target["teacher"]["units"]) if "teacher" in target else head.units(target)
