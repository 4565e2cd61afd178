"""What the notes of own data say of its rows once they are split: their number, and labels that are missing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlp_mtl.labelnames import name_of
from nlp_mtl.owndata.looks import class_names, is_blank
from nlp_mtl.taskfile import Task

if TYPE_CHECKING:
    from datasets import Dataset


def rows_said(task: Task, splits: Mapping[Any, Dataset]) -> list[str]:
    """Notes on the rows of each split: how many, how many without a label, and labels that no training row has.

    Args:
        task: the task.
        splits: its rows as they are trained and scored on.
    """
    sizes = ", ".join(f"{split} {len(rows)}{_unlabelled(task, rows)}" for split, rows in splits.items())
    notes = [f"rows: {sizes}"]
    if task.labels and task.head_name in ("sequence_classification", "multi_label") and "train" in splits:
        seen = set(_names(task, splits["train"]))
        if seen and (missing := [name for name in task.labels if name not in seen]):
            shown = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
            notes.append(f"labels: no training row has {shown}, which can't be learned from the others")
    return notes


def alike(names: Sequence[str]) -> list[str]:
    """A note on labels that are one but for capital letters, spaces or the way that accents are written.

    Example:
        >>> alike(["good", "Good ", "bad"])
        ["labels: 'good', 'Good ' differ only in capital letters, spaces or accents' encoding; if they are one, \
`labels` names them alike (--labels 'good=NAME' …)"]
        >>> alike(["good", "bad"])
        []
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).strip().casefold(), []).append(name)
    same = "; ".join(", ".join(map(repr, group)) for group in groups.values() if len(group) > 1)
    if not same:
        return []
    first = next(group[0] for group in groups.values() if len(group) > 1)
    return [
        f"labels: {same} differ only in capital letters, spaces or accents' encoding; if they are one, `labels` names "
        f"them alike (--labels '{first}=NAME' …)"
    ]


def _unlabelled(task: Task, rows: Dataset) -> str:
    if task.target is None:
        return ""
    if task.target not in rows.column_names:
        return " (no labels)"
    ours = class_names(rows.features[task.target]) is not None
    none = sum(is_blank(value) or (ours and value == -1) for value in rows[task.target][:])
    return "" if not none else " (no labels)" if none == len(rows) else f" ({none} without a label)"


def _names(task: Task, rows: Dataset) -> Iterator[str]:
    """The labels of rows by name; nothing where they are lists of 0 and 1, of which each stands for a label."""
    if task.target not in rows.column_names:
        return
    values = [value for value in rows[task.target][:] if not is_blank(value)]
    lists = [value for value in values if isinstance(value, (list, tuple))]
    if lists and all(len(value) == len(task.labels or ()) and set(value) <= {0, 1} for value in lists):
        return
    known = list(task.labels or ())
    for item in _items(values):
        name = str(name_of(item))
        if name in known:
            yield name
        elif name.isdecimal() and int(name) < len(known):
            yield known[int(name)]


def _items(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, (list, tuple)) else [value]
