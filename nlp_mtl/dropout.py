"""Dropout with the usual law and cheaper masks on the CPU.

`torch.nn.functional.dropout` draws one number at a time from a sequential generator there; in a mixed-task step of a
small encoder that was a quarter of the time. Here the random bytes come from NumPy's SFC64, seeded from torch's own
generator, so that `torch.manual_seed`, checkpoints and activation checkpointing keep their meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def scaled_mask(shape: torch.Size | tuple[int, ...], p: float, like: Tensor) -> Tensor:
    """A mask of 0 (with probability `p`) and 1 / (1 − p).

    Args:
        shape: shape of the mask.
        p: probability of 0, at least 0 and below 1, rounded to a multiple of 2⁻¹⁶ on the CPU; the scale is that of
            the rounded value, so the mean is exactly 1.
        like: gives dtype and device.
    """
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1 - p).div_(1 - p)
    seed = int(torch.randint(0, 2**62, (), dtype=torch.int64))
    count = int(np.prod(shape))
    cut = min(round(p * 65536), 65535)
    raw = np.random.SFC64(seed).random_raw(-(-count // 4))  # 64 random bits at a time, 16 for each element
    low = cut - 32768
    bits = torch.from_numpy(raw.view(np.int16)[:count])
    # all bits 1 where kept, 0 where dropped, by a few passes over integers: far quicker than from bool to float
    bits = bits.clamp_(max=low) if low <= 0 else bits.clamp_(min=low - 1)  # so that the difference fits
    bits = bits.sub_(low).bitwise_right_shift_(15).bitwise_not_()
    whole = _INTEGERS[like.dtype.itemsize]
    pattern = int(torch.tensor(65536 / (65536 - cut), dtype=like.dtype).view(whole))
    return bits.to(whole).bitwise_and_(pattern).view(like.dtype).view(shape)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask = scaled_mask(x.shape, p, x)
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


class Dropout(nn.Dropout):
    """`nn.Dropout`, with cheap masks on the CPU. It has no parameters and leaves checkpoints as they are."""

    def forward(self, input: Tensor) -> Tensor:
        """Zero each element with probability `p` in training mode, and scale the rest."""
        if not self.training or self.p == 0.0:
            return input
        if self.p >= 1.0 or input.device.type != "cpu":
            return super().forward(input)
        return _Dropout.apply(input, self.p)


def use_cheap_dropout(module: nn.Module) -> int:
    """Turn every plain `nn.Dropout` inside `module` into :class:`Dropout`, in place; returns how many."""
    changed = 0
    for child in module.modules():
        if type(child) is nn.Dropout:
            child.__class__ = Dropout
            changed += 1
    return changed
