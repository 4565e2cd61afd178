"""Several linear layers over one input as one product in bfloat16, with float32 weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.kernels import building

_once = torch.autograd.function.once_differentiable


def affine(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """What linear layers make of `x`, side by side; ask :func:`nlp_mtl.kernels.fused.usable` first.

    As autocast does it, weights are rounded to bfloat16 and gradients of weights come from a bfloat16 product; but
    there is one product for all, and gradients of biases are added up in float32.

    Args:
        x: [tokens, in], bfloat16.
        weights: each [out, in], float32.
        biases: each [out], float32.

    Returns:
        [tokens, sum of outs], bfloat16.
    """
    kinds = {one.dtype for one in (*weights, *biases)}
    if x.dtype != torch.bfloat16 or kinds != {torch.float32} or x.dim() != 2 or len(weights) != len(biases):
        raise ValueError("affine: x [tokens, in] in bfloat16; weights [out, in] and biases [out] in float32")
    return _Affine.apply(x, *weights, *biases)


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        half = len(parts) // 2
        sizes = [len(weight) for weight in parts[:half]]
        weight, bias = x.new_empty(sum(sizes), x.shape[1]), x.new_empty(sum(sizes))
        for whole, ones in ((weight, parts[:half]), (bias, parts[half:])):
            for place, one in zip(whole.split(sizes), ones, strict=True):
                place.copy_(one)
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        return torch.addmm(bias, x, weight.t())

    @staticmethod
    @_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient, parts = gradient.contiguous(), len(ctx.sizes)
        needs, found = ctx.needs_input_grad, [None] * (1 + 2 * parts)
        if needs[0]:
            found[0] = gradient @ weight
        if any(needs[1 : 1 + parts]):
            found[1 : 1 + parts] = (gradient.t() @ x).float().split(ctx.sizes)
        if any(needs[1 + parts :]):
            found[1 + parts :] = _column_sums(gradient).split(ctx.sizes)
        return tuple(one if need else None for one, need in zip(found, needs, strict=True))


def _column_sums(x: Tensor) -> Tensor:
    """[width] in float32, of bfloat16 numbers [rows, width]."""
    library = building.compiled()
    assert library is not None
    sums = x.new_zeros(library.threads(), x.shape[1], dtype=torch.float32)
    library.column_sums(1, *x.shape, x.data_ptr(), sums.data_ptr())
    return sums.sum(0)
