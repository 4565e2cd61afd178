"""Few rows of very many numbers: their products, and a weighted sum, in one reading of memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlp_mtl.kernels import building
from nlp_mtl.kernels.fused import usable

_KINDS = {torch.float32: 0, torch.bfloat16: 1}
_PART, _MOST = 8192, 256


def gramian(x: Tensor) -> Tensor:
    """[rows, rows], float64: the products of the rows of `x` [rows, numbers].

    By the kernels in float32 by parts, which are added up in float64; without them in the dtype of `x`.
    """
    if not _fits(x):
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return (wide @ wide.T).double().cpu()
    rows, count = x.shape
    found = torch.zeros(rows, rows, dtype=torch.float64)
    parts = torch.empty(-(-count // _PART), rows, rows)
    _library().gramian(_KINDS[x.dtype], rows, count, x.data_ptr(), x.stride(0), parts.data_ptr(), found.data_ptr())
    return found


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """[numbers]: the sum of the rows of `x` [rows, numbers], each times its weight [rows]; float32 for bfloat16."""
    if not _fits(x):
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return weights.to(wide) @ wide
    out, own = torch.empty(x.shape[1]), weights.float().cpu().contiguous()
    _library().weighted_sum(_KINDS[x.dtype], *x.shape, x.data_ptr(), x.stride(0), own.data_ptr(), out.data_ptr())
    return out


def _fits(x: Tensor) -> bool:
    whole = x.dim() == 2 and x.dtype in _KINDS and x.stride(1) == 1 and 0 < len(x) <= _MOST and x.shape[1] > 0
    return whole and usable(x)


def _library() -> Any:
    return building.compiled()
