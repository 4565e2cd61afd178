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


def kept_gradient_of(weight: Tensor) -> KeptGradient | None:
    """Who keeps the gradient of this parameter, if the gradient there now is the kept one."""
    found = _KEPT.get(weight)
    kept: KeptGradient | None = found() if found is not None else None
    return kept if kept is not None and kept.is_whole() else None


class KeptGradient:
    """Keeps the word embeddings' gradient between steps and clears only the rows that were used.

    Autograd makes a new zero tensor of the embeddings' size at every step (47 MB for a vocabulary of 30 000), to fill
    some hundred rows of it. Here the embedding's own gradient is sparse and is added to one dense tensor that stays.

    Args:
        embedding: trained by nothing but lookups (not tied to an output layer), in one process.
        model: the model it is a part of; its parameters are looked up now and not at every step, since the heads of
            many tasks are hundreds of modules to walk through.
    """

    def __init__(self, embedding: nn.Embedding, model: nn.Module | None = None):
        self.embedding, self._used = embedding, list[Tensor]()
        self._others = [p for p in (model.parameters() if model is not None else ()) if p is not embedding.weight]
        self._hook = embedding.register_forward_pre_hook(self._note)
        self._sparse, embedding.sparse = embedding.sparse, True
        embedding.weight.grad = self._gradient = torch.zeros_like(embedding.weight)
        self._ever: Tensor | None = None
        self._moments: Tensor | None = None
        _KEPT[embedding.weight] = weakref.ref(self)

    def is_whole(self) -> bool:
        """Whether nobody put another gradient in the place of the kept one."""
        return self.embedding.weight.grad is self._gradient

    def rows_now(self) -> Tensor:
        """[n], sorted: the rows whose gradient may be other than 0."""
        return torch.cat(self._used).unique() if self._used else torch.zeros(0, dtype=torch.long)

    def rows_ever(self, mean: Tensor, square: Tensor) -> Tensor:
        """[n], sorted: the rows that an optimizer's step may change.

        Args:
            mean, square: its moments, as large as the weight; looked through once, for what earlier steps left there.
        """
        if self._ever is None or self._moments is not mean:
            self._ever, self._moments = (mean != 0).any(1) | (square != 0).any(1), mean
        for rows in self._used:
            self._ever[rows] = True
        return self._ever.nonzero().flatten()

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            self._used.append(inputs[0].flatten())

    def clear(self) -> None:
        """What `zero_grad` does for this parameter and the others of its model."""
        for parameter in self._others:
            parameter.grad = None
        gradient = self.embedding.weight.grad
        if gradient is None or gradient.is_sparse:
            self.embedding.weight.grad = self._gradient = torch.zeros_like(self.embedding.weight)
        elif self._used:
            gradient.index_fill_(0, torch.cat(self._used), 0.0)
        self._used.clear()

    def release(self) -> None:
        """Back to autograd's own way."""
        _KEPT.pop(self.embedding.weight, None)
        self._hook.remove()
        self.embedding.sparse = self._sparse
        self.embedding.weight.grad = None


@contextmanager
def freed_memory_stays() -> Iterator[None]:
    """Let the C library keep what a training step frees, for the next one, while this block runs.

    A step frees its activations at its end; glibc then gives them back to the system, which must clear every page of
    the next step's. The peak is the same; at the end of the block what is free is given back. Other C libraries are
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
        library.mallopt(_TRIM_THRESHOLD, 2**27)
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
