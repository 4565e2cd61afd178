"""The two halves of a model's forward pass: the encoder's states of a mixed batch, and each task's term of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.heads.few import only
from nlp_mtl.heads.told import units_of
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed


def encoded(
    model: Any,
    inputs: Mapping[str, Tensor],
    lengths: Sequence[int],
    targets: Mapping[str, Mapping[str, Any]],
    counted: Sequence[str] = (),
) -> tuple[Mapping[str, Packed], Layout]:
    """The hidden states of a mixed batch for each of its tasks, from one call of the sharing; and where they are.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        inputs: what the encoder takes.
        lengths: of the sequences.
        targets: task → where its rows are; see :meth:`nlp_mtl.heads.Head.collate`.
        counted: the tasks that some process has rows of, where there are several processes.
    """
    layout = Layout(lengths, model.device)
    layout.taps, layout.counted = model.taps, list(counted)
    if layout.tokens and targets:
        layout.read = torch.zeros(layout.tokens, dtype=torch.bool, device=model.device)
        for task, target in targets.items():
            layout.read_by[task] = model.heads[task].reads(model.module_of(task), layout, target).flatten()
            layout.read[layout.read_by[task]] = True
    if model.taps is not None:
        model.taps.see(layout if model.sharing.tells_rows_apart and layout.tokens else None, layout.read_by)
    return model.sharing.encode(inputs, layout, list(targets) or model.tasks[:1]), layout


def terms_of(
    model: Any,
    packed: Mapping[str, Packed],
    targets: Mapping[str, Mapping[str, Any]],
    units: Mapping[str, float] | None = None,
    return_logits: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Each task's term of the loss with its history, its loss alone without, and its logits.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        packed: what :func:`encoded` gave.
        targets: as there.
        units: task → what its summed loss is divided by; default the count in this batch.
        return_logits: leave them out to save memory.
    """
    extra = model.sharing.extra_losses()
    terms: dict[str, Tensor] = {}
    losses, logits = {}, {}
    for task, target in targets.items():
        head, module = model.heads[task], model.module_of(task)
        with model.sharing.for_head_of(task), nullcontext() if model.taps is None else model.taps.of_head(task):
            seen = only(packed[task], head.dimensions)
            scores = head.forward(module, seen, target)
            taught = "teacher" in target and model.teaching is not None
            if taught:  # what is projected of its states is this task's alone, as its head is
                summed = model.teaching.loss(head, module, seen, scores, target)
        if return_logits:
            logits[task] = scores
        count = units[task] if units is not None else units_of(head, target)
        if ("labels" in target or taught) and count:
            loss = (summed if taught else head.loss(scores, target)) / count
            terms[task], losses[task] = loss, loss.detach()
            if (more := extra.get(model.sharing.key(task))) is not None:  # of as much of the step as this pass has
                terms[task] = loss + more * (units_of(head, target) / count)
    return terms, losses, logits
