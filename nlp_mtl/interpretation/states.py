"""Encoders that tasks use, and their mean hidden states of the same texts at every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nlp_mtl.exporting.plain import plain_encoder
from nlp_mtl.interpretation.cka import cka

_ROWS = 32


def encoders_of(model: Any, *, name: str = "") -> dict[str, Any]:
    """The encoders of a model's tasks as ordinary ones: one for all where they share it whole, else one for each.

    Args:
        model: a :class:`nlp_mtl.MultiTaskModel`.
        name: put before the names, where there are several runs.

    Raises:
        UnsupportedError: a sharing whose parts make no ordinary encoder.
    """
    before = f"{name}: " if name else ""
    if model.sharing.ordinary:
        return {name or "run": plain_encoder(model, model.tasks[0])}
    return {f"{before}{task}": plain_encoder(model, task) for task in model.tasks}


@torch.no_grad()
def states_of(encoder: Any, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The mean hidden state of each text before the first layer and after each.

    Args:
        encoder: an ordinary `transformers` encoder.
        texts: token ids of each.

    Returns:
        For each depth [texts, hidden].
    """
    encoder.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts: list[list[np.ndarray]] = []
    pad = encoder.config.pad_token_id or 0
    for begin in range(0, len(order), _ROWS):
        rows = [torch.as_tensor(list(texts[i])) for i in order[begin : begin + _ROWS]]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad).to(encoder.device)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        found = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        means = [(h.float() * mask[..., None]).sum(1) / lengths[:, None] for h in found]
        parts.append([one.cpu().numpy() for one in means])
    back = np.argsort(order)
    return [np.concatenate(layer)[back] for layer in zip(*parts, strict=True)]


def alike(states: dict[str, list[np.ndarray]]) -> np.ndarray:
    """[encoders, encoders]: CKA of the last layers."""
    names = list(states)
    return np.array([[cka(states[one][-1], states[other][-1]) for other in names] for one in names])


def by_layer(states: dict[str, list[np.ndarray]], reference: str) -> dict[str, list[float]]:
    """Each encoder's CKA with a reference one, layer by layer; of as many layers as both have."""
    first = states[reference]
    return {
        name: [cka(one, other) for one, other in zip(layers, first, strict=False)]
        for name, layers in states.items()
        if name != reference
    }
