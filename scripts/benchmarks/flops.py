"""Arithmetic of a training step of a BERT-like encoder, and the rate at which this machine multiplies matrices.

Matrix products of the encoder's blocks only, per real token; a multiplication and an addition are 2 FLOPs. With W the
weights of the blocks' linear layers, A those of the LoRA matrices beside them, and W₁ and A₁ the part of W and A that
reads the embeddings (query, key and value of the first layer):

    full    forward 2·W,        backward 2·W for the gradient of what each layer reads and 2·W for that of its weights
    LoRA    forward 2·W + 2·A,  backward 2·(W − W₁) + 4·A − 2·a₁: no gradients of the frozen weights, and none of the
            frozen embeddings (a₁: the first matrices, hidden × r, of the adapters in W₁)

Attention's own products (queries by keys, weights by values) are counted apart: forward 4·h·n² per layer and sequence
of n tokens with h the hidden size, backward twice that. The share of the peak ("model FLOPs utilisation") is the first
formula × tokens per second / peak. It counts what the model asks for: work that a program spares (the last layer for
tokens that no head reads, padding) or does twice does not change it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """The sizes of an encoder's blocks; `inner`: of the feed-forward part; `rank`: of a LoRA on all linear layers."""

    layers: int
    hidden: int
    inner: int
    rank: int = 0

    @classmethod
    def of(cls, config: Any, rank: int = 0) -> Sizes:
        """Those of a `transformers` config."""
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size, rank)

    @property
    def weights(self) -> int:
        """W: numbers in the linear layers of the blocks."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.inner)

    @property
    def adapters(self) -> int:
        """A: numbers in the LoRA matrices."""
        return self.layers * self.rank * (4 * 2 * self.hidden + 2 * (self.hidden + self.inner))

    def per_token(self) -> int:
        """FLOPs of a training step per token, attention's own products apart.

        Example:
            >>> Sizes(layers=1, hidden=2, inner=4).per_token()
            192
        """
        if not self.rank:
            return 6 * self.weights
        first = 3 * self.hidden**2
        return 4 * self.weights - 2 * first + 6 * self.adapters - 2 * 3 * self.hidden * self.rank

    def attention(self, squares: float) -> float:
        """FLOPs of attention's own products for so many squared tokens, summed over the sequences."""
        return 12 * self.layers * self.hidden * squares


def matrix_peak(config: Any, tokens: int = 1024, *, seconds: float = 0.3, dtype: Any = None) -> dict[str, float]:
    """What this machine reaches on the products of a step alone, in GFLOP/s.

    Args:
        config: gives the shapes.
        tokens: rows of each product.
        seconds: how long each shape is tried.
        dtype: default bfloat16.

    Returns:
        ``peak``, the best rate of any of the products; ``products``, that of all products of a step one after the
        other, the weights of each layer forward, backward to what it reads, and backward to its weights.
    """
    import torch

    kind = dtype or torch.bfloat16
    hidden, inner = config.hidden_size, config.intermediate_size
    rates, work, took = [], 0.0, 0.0
    for count, reads, gives in ((4, hidden, hidden), (1, hidden, inner), (1, inner, hidden)):
        x, w, g = (torch.randn(shape, dtype=kind) for shape in ((tokens, reads), (gives, reads), (tokens, gives)))
        pairs = ((x, w.t()), (g, w), (g.t(), x))
        for left, right in pairs:
            one = _seconds(left, right, seconds)
            flops = 2.0 * tokens * reads * gives
            rates.append(flops / one)
            work, took = work + count * flops, took + count * one
    return {"peak": max(rates) / 1e9, "products": work / took / 1e9}


def _seconds(left: Any, right: Any, seconds: float) -> float:
    """The time of one product: the median over several short stretches."""
    import torch

    for _ in range(5):
        torch.mm(left, right)
    began = time.perf_counter()
    for _ in range(10):
        torch.mm(left, right)
    times = max(1, int(seconds / 5 / ((time.perf_counter() - began) / 10)))
    each = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            torch.mm(left, right)
        each.append((time.perf_counter() - began) / times)
    return statistics.median(each)
