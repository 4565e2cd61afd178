"""Splits for own data: those it has, or shares of its rows; and what its rows have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlp_mtl.owndata.looks import is_blank

if TYPE_CHECKING:
    from datasets import Dataset

# (from so many different texts, share of each side); fewer rows need larger shares to score at all
_SHARES = ((1000, 0.1), (50, 0.15), (0, 0.3))


@dataclass
class Splits:
    """The `splits` of a task, and notes in plain sentences."""

    shares: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_splits(splits: Mapping[str, Dataset], inputs: Sequence[str], target: str | None, *, most: int = 2) -> Splits:
    """Shares of the training rows where there are no rows to validate on, or only training rows.

    Args:
        splits: the rows by split.
        inputs, target: the columns read, and the one predicted.
        most: hold out at most so many sides; fewer than 2 where the rows are so few that a side would be empty.
    """
    found = Splits()
    texts = {split: _texts(rows, inputs) for split, rows in splits.items()}
    different = len(set(texts["train"]))
    if "validation" not in splits:
        share = next(share for least, share in _SHARES if different >= least)
        sides = ["validation"] if "test" in splits or share == _SHARES[-1][1] else ["validation", "test"]
        sides = sides[:most]
        found.shares = dict.fromkeys(sides, share)
        why = "since the data has only training rows" if len(splits) == 1 else "since the data has no validation rows"
        each = " each" if len(sides) > 1 else ""
        if sides:
            found.notes.append(
                f"splits: {share:.0%} of the rows{each} for {' and '.join(sides)}, {why}; held out by a hash of the "
                "text, so that equal texts stay together (`split_seed` draws others)"
            )
        if missing := [side for side in ("validation", "test") if side not in splits and side not in sides]:
            few = f"since {different} different texts are too few"
            found.notes.append(f"splits: no {' and no '.join(missing)} rows, {few}")
    else:
        counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
        found.notes.append(f"splits: the data's own ({counts} rows)")
    repeated = len(texts["train"]) - different
    if repeated:
        labels = splits["train"][target][:] if target is not None else []
        first = "the first that has a label" if any(map(is_blank, labels)) else "the first"
        done = f"left out but for {first}" if found.shares else "kept, as the data has splits of its own"
        found.notes.append(f"rows: {repeated} training rows have a text that stood before; they are {done}")
    if target is not None and (torn := _torn(splits["train"], texts["train"], target)):
        found.notes.append(f"rows: {torn} text(s) stand there with different labels")
    for split in ("validation", "test"):
        if both := len(set(texts.get(split, ())) & set(texts["train"])):
            found.notes.append(f"rows: {both} text(s) of {split} are training rows too; scores on them say too much")
    return found


def _texts(rows: Dataset, inputs: Sequence[str]) -> list[str]:
    columns = [rows[name][:] for name in inputs if name in rows.column_names]
    return [json.dumps(values, default=str, ensure_ascii=False) for values in zip(*columns, strict=True)]


def _torn(rows: Dataset, texts: Sequence[str], target: str) -> int:
    """How many texts have different labels in different rows; no label is none of them."""
    seen: dict[str, str] = {}
    torn = set()
    for text, label in zip(texts, rows[target][:], strict=True):
        if not is_blank(label) and seen.setdefault(text, str(label)) != str(label):
            torn.add(text)
    return len(torn)
