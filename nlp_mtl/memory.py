"""Habits of autograd and of the allocator on the CPU that cost time or memory, and their cures."""

from __future__ import annotations

import ctypes
import os
import platform
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

# glibc's mallopt: how much free memory at the heap's end is given back; how many blocks may be maps of their own
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_KEPT = WeakTensorKeyDictionary()  # weight → who keeps its gradient


def keeper_of(weight: Tensor) -> KeptGradient | None:
    """Who keeps the gradient of this parameter, if anyone does."""
    found = _KEPT.get(weight)
    return found() if found is not None else None


class KeptGradient:
    """Keeps the word embeddings' gradient between steps and clears only the rows that were used.

    Autograd makes a new zero tensor of the embeddings' size at every step (47 MB for a vocabulary of 30 000), to fill
    some hundred rows of it. Here the embedding's own gradient is sparse and is added to one dense tensor that stays,
    and that is the parameter's gradient from the first backward pass of a step to its end. Before, it is None, as for
    any other parameter, so that an optimizer leaves embeddings alone that were frozen or not read.

    Whoever else writes to the gradient (a penalty on the weights, a callback) is noticed: then all rows count.

    Args:
        embedding: trained by nothing but lookups (not tied to an output layer), in one process.
        model: the model it is a part of; its parameters are looked up now and not at every step, since the heads of
            many tasks are hundreds of modules to walk through.
    """

    def __init__(self, embedding: nn.Embedding, model: nn.Module | None = None):
        weight = embedding.weight
        self.embedding, self._used, self._coming = embedding, list[Tensor](), list[Tensor]()
        self._others = [p for p in (model.parameters() if model is not None else ()) if p is not weight]
        self._hooks = weight.register_hook(self._comes), weight.register_post_accumulate_grad_hook(self._came)
        self._sparse, embedding.sparse = embedding.sparse, True
        weight.grad, self._gradient = None, torch.zeros_like(weight, requires_grad=False)
        self._changed, self._version = False, self._gradient._version
        self._ever: Tensor | None = None
        self._moments: Tensor | None = None
        _KEPT[weight] = weakref.ref(self)

    def is_whole(self) -> bool:
        """Whether the gradient is the kept one, and only lookups were added to it."""
        kept = self.embedding.weight.grad is self._gradient
        return kept and not self._changed and self._version == self._gradient._version

    def rows_now(self) -> Tensor:
        """[n], sorted: the rows whose gradient may be other than 0, if it :meth:`is_whole`."""
        return torch.cat(self._used).unique() if self._used else torch.zeros(0, dtype=torch.long)

    def rows_ever(self, mean: Tensor, square: Tensor) -> Tensor:
        """[n], sorted: the rows that an optimizer's step may change, if it :meth:`is_whole`.

        Args:
            mean, square: its moments, as large as the weight; looked through once, for what earlier steps left there.
        """
        if self._ever is None or self._moments is not mean:
            self._ever, self._moments = (mean != 0).any(1) | (square != 0).any(1), mean
        for rows in self._used:
            self._ever[rows] = True
        return self._ever.nonzero().flatten()

    def forget_rows(self) -> None:
        """Another step was made, one of all rows: look through the moments again."""
        self._ever = self._moments = None

    def _comes(self, gradient: Tensor | None) -> None:
        """Before a gradient is added; None if it goes elsewhere (:mod:`nlp_mtl.gradients`)."""
        if gradient is None:
            return
        if gradient.is_sparse:
            self._coming.append(gradient._indices()[0])
        else:
            self._changed = True
        if self._version != self._gradient._version:
            self._changed = True

    def _came(self, weight: Tensor) -> None:
        """After a gradient was added."""
        if weight.grad is not None and weight.grad.is_sparse:  # the first since there was none
            changed, self._changed = self._changed, False
            self._empty(changed)
            self._gradient.add_(weight.grad)
            weight.grad = self._gradient
        self._used += self._coming
        self._coming.clear()
        self._version = self._gradient._version

    def _empty(self, whole: bool) -> None:
        if whole:
            self._gradient.zero_()
        elif self._used:
            self._gradient.index_fill_(0, torch.cat(self._used), 0.0)
        self._used.clear()

    def clear(self) -> None:
        """What `zero_grad` does for this parameter and the others of its model."""
        for parameter in (*self._others, self.embedding.weight):
            parameter.grad = None
        self._empty(self._changed or self._version != self._gradient._version)
        self._coming.clear()
        self._changed, self._version = False, self._gradient._version

    def release(self) -> None:
        """Back to autograd's own way."""
        _KEPT.pop(self.embedding.weight, None)
        for hook in self._hooks:
            hook.remove()
        self.embedding.sparse = self._sparse
        self.embedding.weight.grad = None


@contextmanager
def freed_memory_stays() -> Iterator[None]:
    """Let the C library keep what a training step frees, for the next one, while this block runs.

    A step frees its activations at its end; glibc then gives them back to the system, which must clear every page of
    the next step's. At the end of the block what is free is given back. Other C libraries are
    left as they are, and so is one for which `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_MAX_` or `GLIBC_TUNABLES` is set.
    """
    said = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"))
    library = None if said or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None)
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, 65536)  # as glibc starts
        library.mallopt(_TRIM_THRESHOLD, 2**27)  # more than it starts with: it no longer grows by itself
        library.malloc_trim(0)


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library can be asked to (glibc).

    Buffers of megabytes in changing sizes, among small things that live longer, leave the heap full of holes: over a
    long file of predictions it grew to several times what is held at any time.

    Example:
        >>> give_back()
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
