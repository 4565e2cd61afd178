"""AdamW and the norm of gradients over all tensors of a model in one call of the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nlp_mtl.kernels import building

_TYPES = (Tensor, torch.nn.Parameter)
PLACES = ("value", "gradient", "mean", "square", "rows", "count", "width")  # the columns of a table of tensors


def line(value: Tensor | None, gradient: Tensor, mean: Tensor | None = None, square: Tensor | None = None) -> list[int]:
    """A tensor's line in a table: addresses of contiguous float32 numbers on the CPU, and their count as one row."""
    return [0 if x is None else x.data_ptr() for x in (value, gradient, mean, square)] + [0, 1, gradient.numel()]


def only_rows(line: np.ndarray, rows: Tensor, matrix: Tensor) -> None:
    """Let a line be about some rows of a matrix; `rows` [n], int64, must live as long as the line is used."""
    line[4:] = rows.data_ptr(), len(rows), matrix.numel() // max(1, len(matrix))


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors."""
    shape = tensors[0].shape if tensors else None
    for x in tensors:  # asked for every parameter at every step
        if type(x) not in _TYPES or x.dtype != torch.float32 or x.layout != torch.strided or x.device.type != "cpu":
            return False
        if not x.is_contiguous() or x.shape != shape:
            return False
    return building.compiled() is not None


@dataclass(frozen=True)
class Pace:
    """How far a step goes, for each line of a table: [lines] each, or one number for all.

    Attributes:
        lr, beta1, beta2, eps, weight_decay: AdamW's.
        step: how many steps were taken, this one included; from 1.
    """

    lr: np.ndarray | float
    beta1: np.ndarray | float
    beta2: np.ndarray | float
    eps: np.ndarray | float
    weight_decay: np.ndarray | float
    step: np.ndarray | float

    def facts(self, lines: int) -> np.ndarray:
        """[lines, 6]: what the kernel multiplies by."""
        found = (
            self.lr / (1 - self.beta1**self.step),
            1 - self.lr * self.weight_decay,
            self.beta1,
            self.beta2,
            (1 - self.beta2**self.step) ** -0.5,
            self.eps,
        )
        return np.stack([np.broadcast_to(np.asarray(x, dtype=np.float64), (lines,)) for x in found], 1)


def adamw(table: np.ndarray, pace: Pace, factor: float = 1.0) -> None:
    """One step in place, with gradients times `factor`; as torch's AdamW to rounding. Ask :func:`fits` first.

    Args:
        table: [tensors, 7], of :func:`line`.
        pace: of each.
        factor: clipping's.
    """
    if len(table):
        table, facts = np.ascontiguousarray(table, dtype=np.int64), pace.facts(len(table))
        _library().adamw(len(table), table.ctypes.data, facts.ctypes.data, factor)


def norm(table: np.ndarray) -> float:
    """The Euclidean norm of all gradients of a table together, the same bits whatever the number of threads.

    Raises:
        MemoryError: there is no memory for the parts' sums.
    """
    table = np.ascontiguousarray(table, dtype=np.int64).reshape(-1, len(PLACES))
    found = _library().squares(len(table), table.ctypes.data)
    if found < 0:
        raise MemoryError("norm of gradients: no memory for its parts")
    return float(found**0.5)


def _library():  # type: ignore[no-untyped-def]
    return building.compiled()
