"""AdamW and the norm of gradients over all tensors of a model in one call of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlp_mtl.kernels import building
from nlp_mtl.kernels.fused import usable


@dataclass(frozen=True)
class Update:
    """One tensor's part in a step.

    Attributes:
        value, gradient, mean, square: of one shape, contiguous float32 on the CPU; `value` is None for a norm alone.
        rows: [n], int64: only these rows of a matrix; None for all.
        step: how many steps were taken, this one included; from 1.
    """

    value: Tensor | None
    gradient: Tensor
    mean: Tensor | None = None
    square: Tensor | None = None
    rows: Tensor | None = None
    lr: float = 0.0
    betas: tuple[float, float] = (0.0, 0.0)
    eps: float = 0.0
    weight_decay: float = 0.0
    step: float = 1.0


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors."""
    plain = all(type(x) in (Tensor, torch.nn.Parameter) and x.layout == torch.strided for x in tensors)
    whole = plain and all(x.dtype == torch.float32 and x.is_contiguous() for x in tensors)
    return whole and len({x.shape for x in tensors}) <= 1 and usable(*tensors)


def adamw(updates: Sequence[Update], factor: float = 1.0) -> None:
    """One step in place, with gradients times `factor`; as torch's AdamW to rounding. Ask :func:`fits` first."""
    if not updates:
        return
    facts = []
    for one in updates:
        first, second = one.betas
        facts.append(
            (
                one.lr / (1 - first**one.step),
                1 - one.lr * one.weight_decay,
                first,
                second,
                (1 - second**one.step) ** -0.5,
                one.eps,
            )
        )
    table, paces = _table(updates), torch.tensor(facts, dtype=torch.float64)
    _library().adamw(len(updates), table.data_ptr(), paces.data_ptr(), factor)
    torch.autograd.graph.increment_version([one.value for one in updates if one.value is not None])


def norm(updates: Sequence[Update]) -> float:
    """The Euclidean norm of all gradients together, the same bits whatever the number of threads.

    Raises:
        MemoryError: there is no memory for the parts' sums.
    """
    table = _table(updates)
    found = _library().squares(len(updates), table.data_ptr())
    if found < 0:
        raise MemoryError("norm of gradients: no memory for its parts")
    return float(found**0.5)


def _table(updates: Sequence[Update]) -> Tensor:
    """[tensors, 7]: addresses of value, gradient, mean, square, rows; then how many rows, and their width."""
    lines = []
    for one in updates:
        size = one.gradient.numel()
        rows, width = (1, size) if one.rows is None else (len(one.rows), size // max(1, len(one.gradient)))
        tensors = (one.value, one.gradient, one.mean, one.square, one.rows)
        lines.append([0 if x is None else x.data_ptr() for x in tensors] + [rows, width])
    return torch.tensor(lines, dtype=torch.int64).reshape(-1, 7)


def _library():  # type: ignore[no-untyped-def]
    return building.compiled()
