"""What preparations share: rows changed one by one, and what is wrong with them said by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import DataError, shown

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]


def rewrite(rows: Dataset, change: Callable[[Row], Row | None], types: dict[str, Any] | None = None) -> Dataset:
    """Every row changed by a function; rows for which it gives None are left out. See :func:`expand`."""

    def one(row: Row) -> list[Row]:
        changed = change(row)
        return [] if changed is None else [changed]

    return expand(rows, one, types)


def expand(rows: Dataset, change: Callable[[Row], Iterable[Row]], types: dict[str, Any] | None = None) -> Dataset:
    """Every row replaced by any number of rows with the same columns as one another.

    Args:
        rows: one split.
        change: what becomes of a row.
        types: the columns whose kind changes; then the others keep theirs, and none is guessed from the first rows.

    Raises:
        DataError: what `change` says is wrong with rows, of up to 1000 rows at once.
    """
    from datasets import Features

    def batch(columns: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        names, made, mistakes = list(columns), list[Row](), []
        for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True):
            try:
                made += change(dict(zip(names, values, strict=True)))
            except DataError as error:
                mistakes.append(f"row {number}: {error}")
            except (AttributeError, TypeError, ValueError) as error:  # a value of another type than the function reads
                found = shown(dict(zip(names, values, strict=True)))
                mistakes.append(f"row {number}: {type(error).__name__}: {error}, found {found}")
        if mistakes:
            more = [f"… and {len(mistakes) - 8} more"] if len(mistakes) > 8 else []
            ways = "way out: correct the data, or leave such rows out with another `prepare:` before"
            raise DataError("\n  ".join([f"{len(mistakes)} row(s) can't be prepared:", *mistakes[:8], *more, ways]))
        keys = list(made[0]) if made else names
        return {key: [row[key] for row in made] for key in keys}

    return rows.map(
        batch,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        features=None if types is None else Features({**rows.features, **types}),
        desc="preparing rows",
    )
