"""Memory that training needs: counted, and measured while a few steps are done."""

from __future__ import annotations

from typing import Any

import torch

from nlp_mtl.dryrun.result import Memory
from nlp_mtl.peak import PeakMemory
from nlp_mtl.trainer import MultiTaskTrainer


def state_bytes(optimizer: Any) -> int:
    """Bytes of an optimizer's state."""
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def memory_of(trainer: MultiTaskTrainer, optimizer: int | None, peak: int | None, largest: int | None) -> Memory:
    """What training needs.

    Args:
        trainer: after the timed steps.
        optimizer: bytes of its state after the first of them; None without a step.
        peak: bytes, measured during them.
        largest: tokens of the largest of them.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    each = {id(p): p for p in model.parameters()}.values()
    how = PeakMemory(trainer.args.device).how
    return Memory(
        weights=sum(p.numel() * p.element_size() for p in each),
        gradients=sum(p.numel() * p.element_size() for p in each if p.requires_grad),
        optimizer=optimizer,
        peak=peak,
        largest_step=largest,
        how="not known: no step was left to measure, or this system does not tell it"
        if peak is None
        else f"{how}, during the timed steps, of which one was the largest of its epoch; weights, gradients and the "
        "optimizer's state (as it is after the first step) are part of it",
    )
