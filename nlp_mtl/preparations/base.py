"""What preparations share: rows changed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]


def rewrite(rows: Dataset, change: Callable[[Row], Row | None]) -> Dataset:
    """Every row changed by a function; rows for which it gives None are left out."""

    def one(row: Row) -> list[Row]:
        changed = change(row)
        return [] if changed is None else [changed]

    return expand(rows, one)


def expand(rows: Dataset, change: Callable[[Row], Iterable[Row]]) -> Dataset:
    """Every row replaced by any number of rows with the same columns as one another."""

    def batch(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names = list(columns)
        given = (dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True))
        made = [new for row in given for new in change(row)]
        keys = list(made[0]) if made else names
        return {key: [row[key] for row in made] for key in keys}

    return rows.map(batch, batched=True, remove_columns=rows.column_names, desc="preparing rows")
