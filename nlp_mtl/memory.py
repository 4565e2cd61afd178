"""Habits of autograd and of the allocator on the CPU that cost time or memory, and their cures."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor, nn


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
        embedding.weight.grad = torch.zeros_like(embedding.weight)

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            self._used.append(inputs[0].flatten())

    def clear(self) -> None:
        """What `zero_grad` does for this parameter and the others of its model."""
        for parameter in self._others:
            parameter.grad = None
        gradient = self.embedding.weight.grad
        if gradient is None or gradient.is_sparse:
            self.embedding.weight.grad = torch.zeros_like(self.embedding.weight)
        elif self._used:
            gradient.index_fill_(0, torch.cat(self._used), 0.0)
        self._used.clear()

    def release(self) -> None:
        """Back to autograd's own way."""
        self._hook.remove()
        self.embedding.sparse = self._sparse
        self.embedding.weight.grad = None


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library can be asked to (glibc).

    Buffers of megabytes in changing sizes, among small things that live longer, leave the heap full of holes: over a
    long file of predictions it grew to several times what is held at any time.

    Example:
        >>> give_back()
    """
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
