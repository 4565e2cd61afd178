"""What becomes an ONNX graph: one encoder pass for each group of tasks that share one, and every task's head on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlp_mtl.exporting.plain import plain_encoder
from nlp_mtl.heads.pooled import PooledHead, family_pooling
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasklora import owners_of


def passes(model: MultiTaskModel, tasks: Sequence[str]) -> list[list[str]]:
    """Tasks that share an encoder pass: those whose sharing gives the same ordinary encoder, with the same adapter."""
    groups: dict[tuple[int, str | None], list[str]] = {}
    kept, owners = [], owners_of(model.sharing.encoder)
    for task in tasks:
        kept.append(model.sharing.collapse(task))  # alive, so that no two have one id
        adapter = None if owners is None else owners.adapter_of[task]
        groups.setdefault((id(kept[-1]), adapter), []).append(task)
    return list(groups.values())


class Graph(nn.Module):
    """All tasks' logits from padded batches.

    Args:
        model: of a run.
        groups: tasks that share an encoder pass; see :func:`passes`.
    """

    def __init__(self, model: MultiTaskModel, groups: Sequence[Sequence[str]]):
        super().__init__()
        self.groups = [list(group) for group in groups]
        self.encoders, self.heads = nn.ModuleList(), nn.ModuleList()
        self.kinds: list[tuple[str, str, str]] = []  # task, class, pooling
        self.masks: list[Tensor | None] = []  # [hidden]: 1 for the dimensions that a head reads
        for group in self.groups:
            encoder = plain_encoder(model, group[0])
            self.encoders.append(encoder)
            for task in group:
                head = model.heads[task]
                module = head.build(encoder)
                module.load_state_dict(model.module_of(task).state_dict())
                pooling: str = head.pooling if isinstance(head, PooledHead) else ""
                if pooling == "family":
                    pooling = family_pooling(module)
                self.heads.append(module)
                self.kinds.append((task, head.auto_class, pooling))
                self.masks.append(_mask(head.dimensions, encoder.config.hidden_size))
        self.eval().requires_grad_(False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``{"<task>.logits": …}``: [rows, labels]; by token [rows, length, labels]; one score a sequence for choices.

        Args:
            input_ids, attention_mask, token_type_ids: [rows, length], padded on the right.
        """
        types: Mapping[str, Any] = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out, number = {}, 0
        for encoder, group in zip(self.encoders, self.groups, strict=True):
            hidden = encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
            for _ in group:
                task, kind, pooling = self.kinds[number]
                mask = self.masks[number]
                seen = hidden if mask is None else hidden * mask
                out[f"{task}.logits"] = _logits(self.heads[number], kind, _read(seen, attention_mask, pooling))
                number += 1
        return out


def _mask(dimensions: Sequence[int] | None, size: int) -> Tensor | None:
    """Which of `size` dimensions a head reads; None for all."""
    return None if dimensions is None else torch.zeros(size).index_fill(0, torch.tensor(list(dimensions)), 1.0)


def _read(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """What a head reads: all states, or [rows, 1, hidden]."""
    if pooling == "mean":
        weights = mask[..., None].to(hidden.dtype)
        return ((hidden * weights).sum(1) / weights.sum(1))[:, None]
    if pooling == "last":
        place = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(-1)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), place][:, None]
    return hidden[:, :1] if pooling == "cls" else hidden


def _logits(module: Any, kind: str, states: Tensor) -> Tensor:
    """Run a head's class on what it reads."""
    choices = kind == "AutoModelForMultipleChoice"
    if choices:
        states = states[:, None]
    ids = torch.zeros(states.shape[:-1], dtype=torch.long, device=states.device)
    vanilla = hasattr(module, "base_model_prefix")
    more = {"attention_mask": torch.ones_like(ids)} if choices and vanilla else {}  # else ModernBERT can't be traced
    out = module(input_ids=ids, inputs_embeds=states, **more)
    if kind == "AutoModelForQuestionAnswering":
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.logits.reshape(-1, 1) if choices else out.logits
