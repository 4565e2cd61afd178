"""Columns of an Arrow table as NumPy, without copying: numbers, and lists of numbers of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


class Ragged:
    """A column of lists of numbers; `column[i]` is a view into the (possibly memory-mapped) table.

    Args:
        column: an Arrow column of lists.
    """

    def __init__(self, column: pa.ChunkedArray):
        self._starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
        self._values = [chunk.values.to_numpy(zero_copy_only=False) for chunk in column.chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self._valid = [None if chunk.null_count == 0 else chunk.is_valid().to_numpy(False) for chunk in column.chunks]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> np.ndarray | None:
        chunk = 0 if len(self._values) == 1 else int(np.searchsorted(self._starts, row, side="right")) - 1
        place = row - int(self._starts[chunk])
        valid = self._valid[chunk]
        if valid is not None and not valid[place]:
            return None
        offsets = self._offsets[chunk]
        return self._values[chunk][offsets[place] : offsets[place + 1]]

    def lengths(self) -> np.ndarray:
        """[rows]: how many numbers each row has."""
        return np.concatenate([np.diff(offsets) for offsets in self._offsets]) if self._offsets else np.zeros(0, int)


class Numbers:
    """A column of numbers; `column[i]` is a Python number, or None."""

    def __init__(self, column: pa.ChunkedArray):
        self._valid = None if column.null_count == 0 else column.is_valid().to_numpy()
        filled = column if self._valid is None else column.fill_null(False if pa.types.is_boolean(column.type) else 0)
        self._values = filled.to_numpy()

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, row: int) -> Any:
        if self._valid is not None and not self._valid[row]:
            return None
        return self._values[row].item()


class Nothing:
    """A column that is None throughout."""

    def __init__(self, rows: int):
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> None:
        return None


Column = Ragged | Numbers | Nothing


def read_column(table: pa.Table, name: str) -> Column:
    """The column `name` of numbers or of lists of numbers."""
    column = table.column(name)
    if pa.types.is_null(column.type):
        return Nothing(len(column))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return Ragged(column)
    return Numbers(column)
